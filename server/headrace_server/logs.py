"""JSON logs, one object a line, on standard error."""

import logging
import sys
from contextlib import suppress

import structlog


def configure_logs(level: str, service: str) -> None:
    """Sends our events and other libraries' records through one JSON renderer.

    Our events, of which each call makes one, become lines at once; as records of `logging` they would cost
    several times as much.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        service: Put into every line as `service`.
    """

    def name_service(
        _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["service"] = service
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_service,
    ]
    rendered: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[*shared, *rendered],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # It writes lines of its own, which no log reader can parse.
    ray = logging.getLogger("ray")
    ray.handlers, ray.propagate = [], True
    for noisy in ("ray", "asyncio", "grpc", "numba"):
        logging.getLogger(noisy).setLevel("WARNING")


class _Lines:
    """A module's logger, which is given lines.

    Args:
        name: The module's.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def _write(self, line: str) -> None:
        # As with `logging`, a full disk or a reader that has gone is nothing to fail for.
        with suppress(OSError):
            sys.stderr.write(f"{line}\n")

    debug = info = warning = error = critical = _write
