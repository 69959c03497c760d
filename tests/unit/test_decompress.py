"""gzip and zstd from outside: bounded, whole, and named when they are not what was said."""

import gzip
import random
import zlib
from pathlib import Path

import pytest
from harness.streams import compress, staged, zstd
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.errors import BadEncodingError, CorruptStreamError, StoreUnavailableError, TooLargeError
from headrace_compute.formats import decompress as module
from headrace_compute.formats.decompress import FREE_BYTES, MAX_RATIO, PIECE_BYTES, decompress
from headrace_compute.model import Compression
from headrace_compute.objects.spool import SpooledFile
from headrace_compute.objects.store import open_store

COMPRESSIONS: tuple[Compression, ...] = ("gzip", "zstd")
TEXT = b"".join(b"u%d,i%d,view\n" % (n % 97, n) for n in range(20_000))


def unpack(root: Path, data: bytes, compression: Compression, piece_bytes: int = 1 << 16) -> bytes:
    config, source = staged(root, data, "csv", compression, piece_bytes=piece_bytes)
    pieces = list(decompress(SpooledFile(open_store(config), source.objects), compression))
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("piece_bytes", [7, 1000, 1 << 20])
def test_a_stream_comes_back_whatever_its_pieces(
    tmp_path: Path, compression: Compression, piece_bytes: int
) -> None:
    data = compress(TEXT, compression)
    if piece_bytes == 7:
        data = compress(TEXT[:2000], compression)
        assert unpack(tmp_path, data, compression, piece_bytes) == TEXT[:2000]
    else:
        assert unpack(tmp_path, data, compression, piece_bytes) == TEXT


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_more_than_a_piece_of_output_comes_in_pieces(tmp_path: Path, compression: Compression) -> None:
    text = b"abcdefgh" * (PIECE_BYTES // 2)
    assert unpack(tmp_path, compress(text, compression), compression) == text


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_streams_in_a_row_are_one_stream(tmp_path: Path, compression: Compression) -> None:
    parts = [TEXT[:5], b"", TEXT[5:]]
    joined = b"".join(compress(part, compression) for part in parts)
    assert unpack(tmp_path, joined, compression, 11) == TEXT


def test_zeros_may_follow_gzip(tmp_path: Path) -> None:
    assert unpack(tmp_path, gzip.compress(TEXT) + bytes(2000), "gzip", 999) == TEXT


def test_zstd_may_begin_with_a_frame_that_is_skipped(tmp_path: Path) -> None:
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
    assert unpack(tmp_path, skipped + zstd(TEXT), "zstd") == TEXT


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("missing", [1, 4, 9, 1000])
def test_a_stream_that_ends_before_its_end_is_corrupt(
    tmp_path: Path, compression: Compression, missing: int
) -> None:
    with pytest.raises(CorruptStreamError, match="before its end") as caught:
        unpack(tmp_path, compress(TEXT, compression)[:-missing], compression)
    assert caught.value.attributes == {"format": compression}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_follows_the_end_is_corrupt(tmp_path: Path, compression: Compression) -> None:
    with pytest.raises(CorruptStreamError):
        unpack(tmp_path, compress(TEXT, compression) + b"rest of the disk", compression)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_never_passes_as_other_text(
    tmp_path_factory: pytest.TempPathFactory, compression: Compression, place: int, byte: int
) -> None:
    data = bytearray(compress(TEXT[:4000], compression))
    data[place % len(data)] = byte
    try:
        found = unpack(tmp_path_factory.mktemp("store"), bytes(data), compression)
    except (CorruptStreamError, BadEncodingError):
        return
    # gzip has bytes without meaning (time, system); zstd frames of Arrow have no checksum of their text.
    assert found == TEXT[:4000] or compression == "zstd"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"PK\x03\x04rest", r"50 4B 03 04 \(a zip file\)"),
        (b"user_id,item_id\n", r"75 73 65 72 \(text, as CSV is\)"),
        (b"\x28\xb5\x2f\xfdrest", r"\(zstd\)"),
        (b"BZh91AY&SY", r"\(bzip2\)"),
        (b"PAR1\x15\x04", r"\(Parquet\)"),
    ],
)
def test_what_is_no_gzip_is_named(tmp_path: Path, data: bytes, named: str) -> None:
    with pytest.raises(BadEncodingError, match=f"begins with .*{named}"):
        unpack(tmp_path, data, "gzip")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_bomb_is_refused_soon(tmp_path: Path, compression: Compression) -> None:
    if compression == "gzip":
        engine = zlib.compressobj(9, wbits=31)
        data = b"".join([*(engine.compress(bytes(1 << 20)) for _ in range(300)), engine.flush()])
    else:
        data = zstd(bytes(300 << 20))
    assert len(data) * MAX_RATIO < 300 << 20
    config, source = staged(tmp_path, data, "csv", compression, piece_bytes=1 << 16)
    total = 0
    with pytest.raises(TooLargeError) as caught:
        for piece in decompress(SpooledFile(open_store(config), source.objects), compression):
            total += len(piece)
    assert total <= max(FREE_BYTES, MAX_RATIO * len(data))
    assert caught.value.attributes["what"] == "decoded bytes"


def test_a_ratio_that_real_files_have_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FREE_BYTES", 0)
    assert unpack(tmp_path, gzip.compress(TEXT, 9), "gzip") == TEXT


def test_a_zstd_window_that_would_take_gigabytes_is_refused(tmp_path: Path) -> None:
    # A frame header that asks for a window of 2 GiB, as `zstd --long=31` writes it.
    with pytest.raises(CorruptStreamError):
        unpack(tmp_path, b"\x28\xb5\x2f\xfd\x00\xa8" + random.Random(1).randbytes(1000), "zstd")


def test_a_staged_object_that_is_gone_or_changed_is_the_store_s_fault(tmp_path: Path) -> None:
    config, source = staged(tmp_path, gzip.compress(TEXT), "csv", "gzip", piece_bytes=1000)
    store = open_store(config)
    for damage in (lambda key: store.put(key, b"x" * 1000), store.delete):
        damage(source.objects[3].key)
        with pytest.raises(StoreUnavailableError):
            list(decompress(SpooledFile(store, source.objects), "gzip"))
