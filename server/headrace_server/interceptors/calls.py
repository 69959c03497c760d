"""One interceptor around every call: request id, log line, metrics, statuses.

It wraps the returned generator, not only the handler, because a stream's errors
surface while it is iterated.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc
import structlog
from grpc import aio
from grpc_status import rpc_status

from headrace_compute.errors import HeadraceError
from headrace_server import metrics
from headrace_server.shutdown import Shutdown, draining
from headrace_server.status import code_of, to_status

REQUEST_ID = "x-request-id"
"""Metadata key: taken from the caller if given, and sent back."""

HEALTH = "CheckHealth"
"""The call that is answered to the end."""

# grpc's type stubs know neither generics of its own classes nor abort_with_status.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = Any

_log = structlog.get_logger(__name__)


class CallInterceptor(aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Gives each call an id, logs and counts its end, and turns errors into statuses.

    Args:
        shutdown: Once it has begun, new calls are refused; streams refuse themselves, in band.
    """

    def __init__(self, shutdown: Shutdown) -> None:
        self._shutdown = shutdown

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wraps the handler of the called method; unknown methods pass as they are."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith("/headrace."):
            return handler
        name = method.rsplit("/", 1)[-1]
        if handler.response_streaming:
            make: Any = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            check = _nothing if handler.request_streaming else self._shutdown.check
            behavior: Any = _streaming(handler.stream_stream or handler.unary_stream, name, check)
        else:
            make = grpc.unary_unary_rpc_method_handler
            check = _nothing if name == HEALTH else self._shutdown.check
            behavior = _unary(handler.unary_unary, name, check)
        wrapped: Handler = make(
            behavior,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return wrapped


def _nothing() -> None:
    """Refuses no call."""


def _unary(behavior: Any, name: str, check: Callable[[], None]) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        with _observed(name, context) as observed:
            try:
                check()
                return await behavior(request, context)
            except BaseException as error:
                await _end(error, context, observed)

    return call


def _streaming(behavior: Any, name: str, check: Callable[[], None]) -> Callable[..., AsyncIterator[Any]]:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        with _observed(name, context) as observed:
            try:
                check()
                responses = behavior(request, context)
                async for response in responses:
                    yield response
            except GeneratorExit:
                observed["code"] = grpc.StatusCode.CANCELLED.name
                raise
            except BaseException as error:
                await _end(error, context, observed)

    return call


@contextmanager
def _observed(name: str, context: Context) -> Iterator[dict[str, str]]:
    """Counts and logs one call; the caller sets `code` when it does not end well."""
    given = dict(context.invocation_metadata() or ()).get(REQUEST_ID, "")
    request_id = str(given)[:64] or uuid.uuid4().hex
    context.set_trailing_metadata(((REQUEST_ID, request_id),))
    observed = {"code": grpc.StatusCode.OK.name, "request_id": request_id}
    started = time.monotonic()
    metrics.CALLS_OPEN.labels(name).inc()
    with structlog.contextvars.bound_contextvars(request_id=request_id, method=name):
        try:
            yield observed
        finally:
            seconds = time.monotonic() - started
            metrics.CALLS_OPEN.labels(name).dec()
            metrics.CALLS.labels(name, observed["code"]).inc()
            metrics.CALL_SECONDS.labels(name).observe(seconds)
            _log.info("call ended", code=observed["code"], seconds=round(seconds, 4))


async def _end(error: BaseException, context: Context, observed: dict[str, str]) -> None:
    """Ends the call with the error's status; a client's own cancellation passes through."""
    if isinstance(error, aio.AbortError):
        raise error
    if isinstance(error, asyncio.CancelledError):
        if context.cancelled():
            observed["code"] = grpc.StatusCode.CANCELLED.name
            raise error
        # Left alone, a cancellation from our side would hang the client to its deadline.
        error = draining()
    if not isinstance(error, HeadraceError):
        _log.error("call failed", exc_info=error)
    observed["code"] = code_of(error).name
    status = rpc_status.to_status(to_status(error, observed["request_id"]))
    await context.abort_with_status(status)
