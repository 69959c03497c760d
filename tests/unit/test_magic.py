"""What a stream is said to be, where it is not what its header says."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from harness.streams import csv_bytes, decoded, ipc_file, ipc_stream, parquet, staged, table_of, zstd
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.errors import BadEncodingError
from headrace_compute.formats.header import read_header
from headrace_compute.kernels.framing import CsvFramer
from headrace_compute.kernels.magic import binary_kind
from headrace_compute.model import Compression
from headrace_compute.schemas.contract import describe

GOOD = {"user_id": "u", "item_id": "i", "interaction_type": "view", "timestamp": "2025-01-01"}
CSV = csv_bytes([GOOD] * 3)
TABLE = table_of([GOOD] * 3)
COLUMNS = describe("interactions").columns


def archive(*names: str, stored: bool = False) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as packed:
        for name in names:
            ods = "application/vnd.oasis.opendocument.spreadsheet"
            packed.writestr(name, ods if name == "mimetype" else "<xml/>" * 99)
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as packed:
        member = tarfile.TarInfo("ratings.csv")
        member.size = len(CSV)
        packed.addfile(member, io.BytesIO(CSV))
    return file.getvalue()


def numpy_file() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(9))
    return file.getvalue()


def sqlite_file() -> bytes:
    with sqlite3.connect(":memory:") as database:
        database.execute("create table t (user_id)")
        return database.serialize()


OBJECT = json.dumps(GOOD).encode()

KINDS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "gzip": (lambda: gzip.compress(CSV), "gzip", "compression GZIP"),
    "zstd": (lambda: zstd(CSV), "zstd", "compression ZSTD"),
    "skippable zstd": (lambda: b"\x5a\x2a\x4d\x18\4\0\0\0abcd" + zstd(CSV), "zstd", "compression ZSTD"),
    "parquet": (lambda: parquet(TABLE), "Parquet", "format PARQUET"),
    "empty parquet": (lambda: parquet(TABLE.slice(0, 0)), "Parquet", "format PARQUET"),
    "arrow file": (lambda: ipc_file(TABLE), "an Arrow IPC file", "format ARROW_IPC"),
    "arrow stream": (lambda: ipc_stream(TABLE), "an Arrow IPC stream", "format ARROW_IPC"),
    "UTF-16": (lambda: CSV.decode().encode("utf-16"), "UTF-16 text", "UTF-8"),
    "UTF-16 LE": (lambda: CSV.decode().encode("utf-16-le"), "UTF-16 text", "UTF-8"),
    "UTF-16 BE": (lambda: CSV.decode().encode("utf-16-be"), "UTF-16 text", "UTF-8"),
    "UTF-32": (lambda: CSV.decode().encode("utf-32"), "UTF-32 text", "UTF-8"),
    "UTF-32 BE": (lambda: CSV.decode().encode("utf-32-be"), "UTF-32 text", "UTF-8"),
    "xlsx": (lambda: archive("[Content_Types].xml", "xl/workbook.xml"), "a spreadsheet", "export"),
    "ods": (lambda: archive("mimetype", "content.xml", stored=True), "a spreadsheet", "export"),
    "zip": (lambda: archive("ratings.csv"), "a zip file", "decompress"),
    "empty zip": (lambda: archive(), "a zip file", "decompress"),
    "bzip2": (lambda: bz2.compress(CSV), "bzip2", "decompress"),
    "xz": (lambda: lzma.compress(CSV), "xz", "decompress"),
    "lz4": (lambda: bytes(pa.compress(CSV, codec="lz4", asbytes=True)), "lz4", "decompress"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c\0\4" + bytes(99), "a 7z file", "decompress"),
    "RAR": (lambda: b"Rar!\x1a\x07\1\0" + bytes(99), "a RAR file", "decompress"),
    "tar": (tar, "a tar file", "decompress"),
    "numpy": (numpy_file, "a NumPy array", "export"),
    "pickle": (lambda: pickle.dumps([GOOD]), "a Python pickle", "export"),
    "sqlite": (sqlite_file, "an SQLite database", "export"),
    "PDF": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF", "export"),
    "HTML": (lambda: b"\n<!DOCTYPE html>\n<html>", "HTML or XML", "export"),
    "XML": (lambda: b"\xef\xbb\xbf<?xml version='1.0'?>\n<a/>", "HTML or XML", "export"),
    "JSON lines": (lambda: OBJECT + b"\n" + OBJECT, "JSON", "one object per line"),
    "tight JSON lines": (lambda: OBJECT.replace(b" ", b""), "JSON", "one object per line"),
    "indented JSON": (lambda: json.dumps(GOOD, indent=1).encode(), "JSON", "one object per line"),
    "JSON array": (lambda: b"[" + OBJECT + b"]", "a JSON array", "one object per line"),
    "long JSON array": (
        lambda: b"[%s]" % b",".join([OBJECT] * 20_000),
        "a JSON array",
        "one object per line",
    ),
    "quoted JSON": (lambda: b'{"a":",","b":"c"}\n' * 9, "JSON", "one object per line"),
    "indented array": (lambda: json.dumps([GOOD], indent=2).encode(), "a JSON array", "one object per line"),
}


def header_of(data: bytes, piece_bytes: int, packed: str = "") -> tuple[str, ...]:
    """Takes a plain stream as the server does, up to its columns."""
    framer = CsvFramer(packed=packed)
    for at in range(0, len(data), piece_bytes):
        framer.feed(data[at : at + piece_bytes])
        framer.cut(1 << 16)
    framer.finish(1 << 16)
    return read_header(COLUMNS, framer.header or b"", False, packed)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_taken_for_csv_is_named_with_its_remedy(name: str, tmp_path: Path) -> None:
    make, kind, remedy = KINDS[name]
    with pytest.raises(BadEncodingError, match="is not CSV") as caught:
        header_of(make(), 1 << 20)
    assert kind in caught.value.message
    assert kind in caught.value.attributes["found"]
    assert remedy in caught.value.message.rpartition(";")[2]
    config, source = staged(tmp_path, zstd(make()), "csv", "zstd", piece_bytes=1 << 20)
    with pytest.raises(BadEncodingError, match="content of the zstd stream begins") as caught:
        decoded(config, source)
    assert kind in caught.value.message
    assert "decompress it, then" in caught.value.message


@pytest.mark.parametrize("name", [name for name, (_, kind, _) in KINDS.items() if kind != "a spreadsheet"])
def test_it_is_named_however_little_comes_at_once(name: str) -> None:
    make, kind, _ = KINDS[name]
    with pytest.raises(BadEncodingError) as caught:
        header_of(make()[: 1 << 12], 3)
    assert kind in caught.value.message


DECLARED: dict[str, tuple[Any, Compression, str]] = {
    "gzip": ("csv", "gzip", "is not gzip"),
    "zstd": ("csv", "zstd", "is not zstd"),
    "parquet": ("parquet", "none", "is not Parquet"),
    "arrow": ("arrow_ipc", "none", "is not an Arrow IPC stream or file"),
}


@pytest.mark.parametrize("declared", DECLARED)
@pytest.mark.parametrize(
    "name", ["gzip", "zstd", "parquet", "arrow file", "arrow stream", "xlsx", "JSON array", "CSV"]
)
def test_what_is_not_as_declared_is_named_with_its_remedy(name: str, declared: str, tmp_path: Path) -> None:
    format, compression, says = DECLARED[declared]
    if name.startswith(declared):
        return
    make, kind, remedy = KINDS.get(name, (lambda: CSV, "text, as CSV is", "as CSV without compression"))
    config, source = staged(tmp_path, make(), format, compression, piece_bytes=1 << 20)
    with pytest.raises(BadEncodingError, match=says) as caught:
        decoded(config, source)
    assert kind in caught.value.message
    assert remedy in caught.value.message


@given(st.sampled_from(list(KINDS)), st.integers(1, 400))
def test_a_header_that_begins_like_another_format_is_a_header_all_the_same(name: str, size: int) -> None:
    start = KINDS[name][0]()[:size]
    name_of_it = start.decode("utf-8", "ignore").replace("\0", "").lstrip("\ufeff")
    if binary_kind(name_of_it.encode()):
        return  # Control characters, which no column is called.
    header = ",".join(['"' + name_of_it.replace('"', '""') + '"', *GOOD]).encode()
    assert header_of(header + b"\n", 7)[1:] == tuple(GOOD)
