"""What a stream is, by its first bytes."""

_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "a zip file"),
    (b"PAR1", "Parquet"),
    (b"PARE", "encrypted Parquet"),
    (b"ARROW1\x00\x00", "an Arrow IPC file"),
    (b"\xff\xff\xff\xff", "an Arrow IPC stream"),
    (b"Obj\x01", "Avro"),
    (b"ORC", "ORC"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\xff\x06\x00\x00sNaPpY", "snappy"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file"),
    (b"%PDF", "a PDF"),
)

_NO_TEXT = frozenset({"gzip", "zstd", "a zip file", "lz4", "xz"})
"""Kinds that the first four bytes tell from any CSV."""

SHOWN = 4


def kind_of(start: bytes) -> str:
    """What begins like this; empty if nothing known does."""
    return next((name for magic, name in _KINDS if start.startswith(magic)), "")


def binary_kind(start: bytes) -> str:
    """The kind whose first four bytes no CSV has; empty for anything that may be CSV."""
    return next(
        (name for magic, name in _KINDS if name in _NO_TEXT and start.startswith(magic[:SHOWN])),
        "",
    )


def describe_start(start: bytes) -> str:
    """The first bytes for a message, such as `50 4B 03 04 (a zip file)`."""
    if not start:
        return "nothing at all"
    shown = start[:SHOWN].hex(" ").upper()
    kind = kind_of(start)
    return f"{shown} ({kind})" if kind else shown
