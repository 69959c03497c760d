"""Decompression, bounded in memory: pieces of at most PIECE_BYTES, and no more than a stream may hold."""

import zlib
from collections.abc import Iterator

import pyarrow as pa

from headrace_compute.errors import CorruptStreamError, HeadraceError, TooLargeError
from headrace_compute.kernels.magic import START_BYTES, kind_of, mismatch
from headrace_compute.model import Compression
from headrace_compute.objects.spool import SpooledFile

PIECE_BYTES = 1 << 20
"""Decompressed bytes handed out at once."""

MAX_RATIO = 200
"""Decompressed bytes for each byte sent. CSV compresses 4 to 40 times; bombs a thousand times and more."""

FREE_BYTES = 64 << 20
"""Bytes that any stream may decompress to, whatever its ratio."""

MAX_BYTES = 256 << 30
"""Limit on the decompressed bytes of any stream."""

_SENT_BYTES = 64 << 10
"""Compressed bytes passed to zlib at once: it copies what it has not consumed."""


def decoded_limit(size_bytes: int) -> int:
    """How many bytes a stream of `size_bytes` may decode to."""
    return min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * size_bytes))


def decompress(file: SpooledFile, compression: Compression) -> Iterator[bytes]:
    """The decompressed stream in pieces, none of them empty.

    Several gzip members or zstd frames in a row are one stream, as `cat` makes them.

    Raises:
        BadEncodingError: The stream is not compressed in that way.
        CorruptStreamError: It is damaged, ends before its end, or has something behind it.
        TooLargeError: It decompresses to more than `decoded_limit`.
    """
    start = file.read(START_BYTES)
    file.seek(0)
    kind = kind_of(start)
    if start and (kind is None or kind.name != compression):
        raise mismatch(start, compression)
    total, limit = 0, decoded_limit(file.size)
    for piece in _gunzip(file) if compression == "gzip" else _unzstd(file):
        total += len(piece)
        if total > limit:
            raise TooLargeError(
                f"The {compression} stream of {file.size:,} bytes decompresses to more than {limit:,}; the "
                f"limit is {MAX_RATIO} times its size, at least {FREE_BYTES:,} and at most {MAX_BYTES:,}. "
                "Split the file, or send it uncompressed.",
                {"what": "decoded bytes", "limit": str(limit)},
            )
        yield piece


def _gunzip(file: SpooledFile) -> Iterator[bytes]:
    engine = None
    members = 0
    while data := file.read(_SENT_BYTES):
        while data:
            if engine is None:
                # gzip(1) pads its output for tapes; the standard lets zeros follow.
                data = data.lstrip(b"\0") if members else data
                if not data:
                    break
                if data[0] != 0x1F:
                    raise _corrupt("gzip", f"other bytes follow its end, before byte {file.tell():,}")
                engine = zlib.decompressobj(wbits=31)
            while True:
                try:
                    piece = engine.decompress(data, PIECE_BYTES)
                except zlib.error as error:
                    what = f"zlib says {_reason(error)!r} before byte {file.tell():,}"
                    raise _corrupt("gzip", what) from None
                if piece:
                    yield piece
                data = engine.unconsumed_tail
                if engine.eof or len(piece) < PIECE_BYTES:
                    break
            if engine.eof:
                data = engine.unused_data
                engine, members = None, members + 1
    if engine is not None:
        raise _corrupt("gzip", f"it ends at byte {file.size:,}, before its end; send all of the file")


def _unzstd(file: SpooledFile) -> Iterator[bytes]:
    try:
        with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd") as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece
    except HeadraceError:
        raise
    except (OSError, pa.ArrowException) as error:
        if "Truncated" in str(error):
            message = f"it ends at byte {file.size:,}, before its end; send all of the file"
        elif "too much memory" in str(error):
            message = "its window is larger than 128 MiB; compress it without --long or --ultra"
        else:
            message = f"zstd finds it damaged before byte {file.tell():,}"
        raise _corrupt("zstd", message) from None


def _corrupt(compression: str, what: str) -> CorruptStreamError:
    return CorruptStreamError(
        f"The {compression} stream cannot be decompressed: {what}.", {"format": compression}
    )


def _reason(error: zlib.error) -> str:
    return str(error).rpartition(": ")[2][:80]
