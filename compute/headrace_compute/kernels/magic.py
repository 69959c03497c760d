"""What a stream is, by its first bytes, and what to do where its header says something else."""

import re
from typing import NamedTuple

from headrace_compute.errors import BadEncodingError

START_BYTES = 512
"""Of a stream, as much as tells what it is."""

_SHOWN = 4

_DECOMPRESS = "decompress it and upload what is in it"
_EXPORT = "export it as CSV in UTF-8 or as Parquet"
_SHEET = "export the sheet as CSV in UTF-8"
_UTF8 = "convert it to UTF-8"
_OBJECTS = "write one object per line and upload it with format JSON_LINES"


class Kind(NamedTuple):
    """One kind of stream.

    Attributes:
        remedy: What to do with it, as an order.
        text: Whether it begins with characters that a CSV header may begin with too.
    """

    name: str
    remedy: str
    start: re.Pattern[bytes]
    text: bool = False


def _kind(name: str, remedy: str, start: bytes, *, text: bool = False) -> Kind:
    return Kind(name, remedy, re.compile(start, re.DOTALL), text)


_KINDS = (
    _kind("gzip", "upload it with compression GZIP", rb"\x1f\x8b"),
    _kind("zstd", "upload it with compression ZSTD", rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
    _kind("Parquet", "upload it with format PARQUET", rb"PAR1\x15"),
    _kind("encrypted Parquet", "write it without encryption", rb"PARE..\0\0"),
    _kind("an Arrow IPC file", "upload it with format ARROW_IPC", rb"ARROW1\0\0"),
    _kind("an Arrow IPC stream", "upload it with format ARROW_IPC", rb"\xff\xff\xff\xff"),
    _kind("UTF-32 text", _UTF8, rb"\xff\xfe\0\0|\0\0\xfe\xff"),
    _kind("UTF-16 text", _UTF8, rb"\xff\xfe|\xfe\xff"),
    _kind("UTF-32 text", _UTF8, rb"[ -~]\0{3}|\0{3}[ -~]", text=True),
    _kind("UTF-16 text", _UTF8, rb"(?:[\t\r\n -~]\0){2}|(?:\0[\t\r\n -~]){2}", text=True),
    _kind(
        "a spreadsheet",
        _SHEET,
        rb"PK\x03\x04.{26}(?:\[Content_Types\]|_rels/|docProps/|xl/|mimetypeapplication/vnd\.oasis)",
    ),
    _kind("a zip file", _DECOMPRESS, rb"PK(?:\x03\x04|\x05\x06)"),
    _kind("an old Excel file", _SHEET, rb"\xd0\xcf\x11\xe0"),
    _kind("bzip2", _DECOMPRESS, rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", text=True),
    _kind("xz", _DECOMPRESS, rb"\xfd7zXZ\0"),
    _kind("a 7z file", _DECOMPRESS, rb"7z\xbc\xaf\x27\x1c"),
    _kind("lz4", _DECOMPRESS, rb"\x04\x22\x4d\x18"),
    _kind("snappy", _DECOMPRESS, rb"\xff\x06\0\0sNaPpY"),
    _kind("a RAR file", _DECOMPRESS, rb"Rar!\x1a\x07", text=True),
    _kind("a tar file", _DECOMPRESS, rb".{257}ustar", text=True),
    _kind("Avro", _EXPORT, rb"Obj\x01", text=True),
    _kind("ORC", _EXPORT, rb"ORC[^\t\r\n -~]", text=True),
    _kind("HDF5", _EXPORT, rb"\x89HDF"),
    _kind("a NumPy array", _EXPORT, rb"\x93NUMPY"),
    _kind("a Python pickle", _EXPORT, rb"\x80[\x02-\x05]"),
    _kind("an SQLite database", _EXPORT, rb"SQLite format 3\0"),
    _kind("a PDF", _EXPORT, rb"%PDF-", text=True),
    _kind("HTML or XML", _EXPORT, rb"(?i:\s*<(?:!doctype|html|head|body|\?xml))", text=True),
    _kind("JSON", "upload it with format JSON_LINES, one object per line", rb"\s*\{\s*(?:\"|$)", text=True),
    _kind("a JSON array", _OBJECTS, rb"\s*\[\s*(?:[\[{\"\]]|$)", text=True),
)
_TEXT = _kind("text, as CSV is", "upload it as CSV without compression", rb"[\t\r\n -~]{4}", text=True)


def kind_of(start: bytes) -> Kind | None:
    """What begins like this; None if nothing known does."""
    start = start[:START_BYTES].removeprefix(b"\xef\xbb\xbf")
    return next((kind for kind in _KINDS if kind.start.match(start)), None)


def binary_kind(start: bytes) -> Kind | None:
    """The kind that no CSV begins like; None for anything that may be CSV."""
    kind = kind_of(start)
    return kind if kind and not kind.text else None


def mismatch(start: bytes, declared: str, packed: str = "") -> BadEncodingError:
    """The error of a stream that is not what its header says: what it is, and the remedy.

    Args:
        start: How it begins.
        declared: What it should be, such as `Parquet`.
        packed: How it is compressed, if `start` is what that gave.
    """
    stream = f"The content of the {packed} stream" if packed else "The stream"
    if not start:
        message = f"{stream} is empty, which is not {declared}; write the file again, and send all of it."
        return BadEncodingError(message, {"found": "nothing at all"})
    kind = kind_of(start)
    if kind is None and declared != "CSV" and _TEXT.start.match(start):
        kind = _TEXT
    found = start[:_SHOWN].hex(" ").upper()
    remedy = "send CSV as UTF-8 text" if declared == "CSV" else "name in the header what the stream is"
    if kind:
        found, remedy = f"{found} ({kind.name})", kind.remedy
    first = "decompress it, then " if packed else ""
    message = f"{stream} begins with {found}, which is not {declared}; {first}{remedy}."
    return BadEncodingError(message, {"found": found})
