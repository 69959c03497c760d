"""Decodes requests, so that malformed bytes, and too many of them, end a call with one of our errors.

gRPC itself would decode before it calls a handler, and answer malformed bytes with UNKNOWN and the names
of Python classes. So handlers receive bytes, and decode them here.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Self

from google.protobuf.message import DecodeError

from headrace_compute.errors import MalformedMessageError
from headrace_server.rpc.bounds import bound_of

Decode = Callable[[bytes], Any]


class Decoder:
    """Decodes the requests of one method.

    Args:
        method: Its full name, as gRPC has it.
        decode: Makes a message of bytes.
    """

    def __init__(self, method: str, decode: Decode) -> None:
        self._method = method
        self._decode = decode
        self._bound = bound_of(method)

    def one(self, data: bytes) -> Any:
        """The message.

        Raises:
            MessageTooLargeError, InvalidFieldError: There is too much of it; see Bound.
            MalformedMessageError: The bytes are none.
        """
        self._bound.check(self._method, data)
        try:
            return self._decode(data)
        except DecodeError:
            raise MalformedMessageError(
                f"The request is not a message that {self._method} takes: it is damaged, nested too deeply, "
                "or has a string that is not UTF-8. Send what code generated from the proto files makes.",
                {"method": self._method},
            ) from None

    def each(self, stream: AsyncIterator[bytes]) -> "DecodedRequests":
        """The messages of a client's stream."""
        return DecodedRequests(self, stream)


class DecodedRequests:
    """A client's stream of messages. One that is malformed or too large raises; those after it still come."""

    def __init__(self, decoder: Decoder, stream: AsyncIterator[bytes]) -> None:
        self._decoder = decoder
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next message.

        Raises:
            InvalidDataError: It is none, or too large; see Decoder.
        """
        return self._decoder.one(await anext(self._stream))
