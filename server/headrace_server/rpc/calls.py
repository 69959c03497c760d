"""One interceptor around every call: request id, log line, metrics, statuses.

It wraps the returned generator, not only the handler, because a stream's errors
surface while it is iterated.
"""

import asyncio
import inspect
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import grpc
import structlog
from grpc import aio
from grpc_status import rpc_status

from headrace_compute.errors import HeadraceError, OverloadedError
from headrace_server import metrics
from headrace_server.rpc import call_log
from headrace_server.rpc.decoding import Decoder
from headrace_server.rpc.refusals import Refusals
from headrace_server.rpc.shutdown import Shutdown, draining
from headrace_server.rpc.status import code_of, to_status
from headrace_server.rpc.unread import Unread

REQUEST_ID = "x-request-id"
"""Metadata key: taken from the caller if given and printable ASCII, and sent back."""

REQUEST_ID_LENGTH = 64
"""Longer ids are truncated."""

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
        unread: Gives up calls whose clients do not read.
    """

    def __init__(self, shutdown: Shutdown, unread: Unread) -> None:
        self._shutdown = shutdown
        self._unread = unread
        self._refusals = Refusals()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wraps the handler of the called method, which is given bytes; unknown methods pass as they are.

        Health checks and reflection, which balancers and tools call all the time, are neither logged nor
        counted, and are answered to the end.
        """
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        decoder = Decoder(method, handler.request_deserializer or bytes)
        ours = method.startswith("/headrace.")
        name = method.rsplit("/", 1)[-1]
        # Streams in both directions refuse themselves, in band.
        answered = not ours or name == HEALTH or handler.request_streaming
        call = _Call(
            behavior=handler.stream_stream or handler.unary_stream or handler.unary_unary,
            decode=decoder.each if handler.request_streaming else decoder.one,
            check=_nothing if answered else self._shutdown.check,
            observe=partial(_observed, name) if ours else _unobserved,
            unread=self._unread,
            refusals=self._refusals,
        )
        make: Any = grpc.unary_unary_rpc_method_handler
        if handler.response_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
        # Those that write to the context, as grpcio's health does, are awaited like unary ones.
        behavior = call.unary if inspect.iscoroutinefunction(call.behavior) else call.stream
        wrapped: Handler = make(behavior, response_serializer=handler.response_serializer)
        return wrapped


def _nothing() -> None:
    """Refuses no call."""


@dataclass(frozen=True)
class _Call:
    """A method as gRPC calls it, with the bytes that came.

    Attributes:
        behavior: The servicer's method.
        decode: Makes what it takes of the bytes.
        check: Refuses calls that must not begin.
        observe: Gives a call its id, and counts and logs it.
        unread: Gives it up if its client does not read.
        refusals: Has refusals wait for each other.
    """

    behavior: Any
    decode: Callable[[Any], Any]
    check: Callable[[], None]
    observe: Callable[[Context], AbstractContextManager[dict[str, str]]]
    unread: Unread
    refusals: Refusals

    async def unary(self, data: bytes, context: Context) -> Any:
        with self.observe(context) as observed, self.unread.entered(context.peer()):
            try:
                self.check()
                request = self.decode(data)
                _note_tenant(request)
                return await self.behavior(request, context)
            except BaseException as error:
                await self._end(error, context, observed)

    async def stream(self, data: Any, context: Context) -> AsyncIterator[Any]:
        with self.observe(context) as observed, self.unread.entered(context.peer()) as call:
            try:
                self.check()
                request = self.decode(data)
                _note_tenant(request)
                responses = self.behavior(request, context)
                async for response in responses:
                    with call.sending(responses):
                        yield response
            except GeneratorExit:
                observed["code"] = grpc.StatusCode.CANCELLED.name
                raise
            except BaseException as error:
                await self._end(error, context, observed)

    async def _end(self, error: BaseException, context: Context, observed: dict[str, str]) -> None:
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
        observed["reason"] = error.reason if isinstance(error, HeadraceError) else "INTERNAL"
        observed["message"] = str(error)[: call_log.VALUE_CHARS * 4]
        if isinstance(error, OverloadedError):
            await self.refusals.turn(context.peer())
        status = rpc_status.to_status(to_status(error, observed["request_id"]))
        await context.abort_with_status(status)


def _note_tenant(request: Any) -> None:
    """Notes the tenant that a request names; streams of requests note it when they have read it."""
    if tenant := getattr(request, "tenant_id", ""):
        call_log.note(tenant=tenant)


@contextmanager
def _unobserved(context: Context) -> Iterator[dict[str, str]]:
    yield {"request_id": uuid.uuid4().hex}


def request_id_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The caller's id of a call; a new one if it gave none, or one that cannot be sent back.

    Values of metadata are printable ASCII, but not every client holds to that, and not every one is refused.
    """
    given = dict(metadata).get(REQUEST_ID, "")
    usable = isinstance(given, str) and given.isascii() and given.isprintable()
    return str(given)[:REQUEST_ID_LENGTH].strip() if usable and given.strip() else uuid.uuid4().hex


@contextmanager
def _observed(name: str, context: Context) -> Iterator[dict[str, str]]:
    """Counts and logs one call; the caller sets `code` when it does not end well."""
    request_id = request_id_of(context.invocation_metadata() or ())
    context.set_trailing_metadata(((REQUEST_ID, request_id),))
    observed = {"code": grpc.StatusCode.OK.name, "request_id": request_id}
    facts = call_log.begin()
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
            # An error is its caller's to mend, or ours; whose call was cancelled knows it.
            tell = _log.warning if "reason" in observed else _log.info
            told = {name: value for name, value in observed.items() if name != "request_id"}
            tell("call ended", seconds=round(seconds, 4), **facts, **told)
