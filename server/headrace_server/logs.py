"""JSON logs, one object a line, on standard error."""

import logging
import sys

import structlog


def configure_logs(level: str, service: str) -> None:
    """Sends our events and other libraries' records through one JSON renderer.

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
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
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
