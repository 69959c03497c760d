"""What the log says of a call: whoever learns a fact of it notes it, in whatever task."""

from contextvars import ContextVar

import structlog

VALUE_CHARS = 128
"""Of a fact, which may be a caller's."""

_noted: ContextVar[dict[str, str]] = ContextVar("noted")


def begin() -> dict[str, str]:
    """Begins to gather the facts of a call, in the context of its task; returns where they are gathered."""
    facts: dict[str, str] = {}
    _noted.set(facts)
    return facts


def note(**facts: str) -> None:
    """Adds facts to this task's log lines, and to the one with which the call ends."""
    short = {name: value[:VALUE_CHARS] for name, value in facts.items()}
    structlog.contextvars.bind_contextvars(**short)
    # Tasks of a call have copies of its context, and share what it holds.
    _noted.get({}).update(short)
