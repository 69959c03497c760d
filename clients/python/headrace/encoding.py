"""Detects a file's format and compression by its name or its first bytes."""

import os
import stat
from pathlib import Path, PurePath
from typing import Literal, TypeAlias, TypeVar

from headrace.source import Compression, File, opened

Format: TypeAlias = Literal["csv", "json_lines", "arrow_ipc", "parquet"]
"""How a file encodes rows."""

_Kind = TypeVar("_Kind", bound=str)

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".arrow": "arrow_ipc",
    ".arrows": "arrow_ipc",
    ".feather": "arrow_ipc",
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}

_FORMAT_STARTS: tuple[tuple[bytes, Format], ...] = (
    (b"PAR1", "parquet"),
    (b"ARROW1\x00\x00", "arrow_ipc"),
    (b"\xff\xff\xff\xff", "arrow_ipc"),
    (b"{", "json_lines"),
)
_COMPRESSION_STARTS: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_BOM = b"\xef\xbb\xbf"
_START_BYTES = 4096


def encoding_of(
    file: File, format: Format | None = None, compression: Compression | None = None
) -> tuple[Format, Compression]:
    """The format and compression of a file.

    What is given holds. Otherwise the file's name tells; where its ending says nothing, the first
    bytes of a regular file do. What neither tells is plain CSV.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is one JSON array.
    """
    name = PurePath(file if isinstance(file, str | os.PathLike) else str(getattr(file, "name", "")))
    packed = _COMPRESSIONS.get(name.suffix.lower())
    if packed is not None:
        name = name.with_suffix("")
    format = format or _FORMATS.get(name.suffix.lower())
    compression = compression or packed
    if format is None and isinstance(file, str | os.PathLike) and _is_regular(file):
        compression = compression or _starting(_COMPRESSION_STARTS, _start(file, "none")) or "none"
        format = _format_inside(file, compression)
    return format or "csv", compression or "none"


def _format_inside(file: str | os.PathLike[str], compression: Compression) -> Format | None:
    start = _start(file, compression)
    text = start.removeprefix(_BOM).lstrip()
    if text.startswith(b"["):
        raise ValueError(
            f"{PurePath(file).name} is a JSON array; write one object per line, for instance with"
            " jq -c '.[]', or give format csv if it is CSV."
        )
    return _starting(_FORMAT_STARTS, start) or _starting(_FORMAT_STARTS[-1:], text)


def _starting(starts: tuple[tuple[bytes, _Kind], ...], content: bytes) -> _Kind | None:
    return next((kind for start, kind in starts if content.startswith(start)), None)


def _is_regular(file: str | os.PathLike[str]) -> bool:
    try:
        return stat.S_ISREG(os.stat(file).st_mode)
    except FileNotFoundError:
        return False  # Whoever opens it says so.


def _start(file: str | os.PathLike[str], compression: Compression) -> bytes:
    try:
        with opened(Path(file), compression) as content:
            return content.read(_START_BYTES)
    except (OSError, ValueError):
        if compression == "none":
            raise
        return b""  # What cannot be unpacked is refused by whoever unpacks it.
