"""What can go wrong with a broker.

BrokerError
├── BrokerUnavailableError   this machine lacks something; the message names it and the remedy
└── BrokerStartError         everything is there, and yet the server does not run or does not end
"""


class BrokerError(Exception):
    """A broker cannot be had."""


class BrokerUnavailableError(BrokerError):
    """The machine lacks a tool or the network; names what, and what to do."""

    def __init__(self, missing: str, remedy: str) -> None:
        super().__init__(missing, remedy)
        self.missing = missing
        self.remedy = remedy

    def __str__(self) -> str:
        separator = "\n" if "\n" in self.missing else ". "
        return f"{self.missing}{separator}{self.remedy}"


class BrokerStartError(BrokerError):
    """A server ended early, never answered, or would not end; the message ends with its last log lines."""
