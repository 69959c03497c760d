"""Framing and tokenising against an oracle that finds fields by regular expressions."""

import itertools
import re
from collections.abc import Iterator

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.errors import BadEncodingError, CorruptStreamError, RecordTooLargeError
from headrace_compute.kernels.framing import CsvFramer, Framed
from headrace_compute.kernels.tokens import tokenise
from headrace_compute.model import MAX_RECORD_BYTES

FIELD = re.compile(rb'"((?:[^"]|"")*)("?)([^,\r\n]*)|([^,\r\n]*)')
LINE_END = re.compile(rb"\r\n|\n|\r")
BOM = b"\xef\xbb\xbf"

MISQUOTED = b"<text behind a closing quote>"
"""In place of the fields of a record that has it."""


class OpenQuote(Exception):
    """A quote is open at the end of a stream; args[0] is its place."""


Record = tuple[int, int, bytes, list[bytes]]
"""Line, offset, raw record, fields."""


def oracle(stream: bytes) -> list[Record]:
    start = len(BOM) if stream.startswith(BOM) else 0
    return list(_records(stream, start))


def open_quote(stream: bytes) -> int | None:
    """Where the quote stands that is open at the end, if one is."""
    try:
        oracle(stream)
    except OpenQuote as found:
        return int(found.args[0])
    return None


def closed(stream: bytes) -> bytes:
    """The stream, its last value closed."""
    return stream if open_quote(stream) is None else stream + b'"'


def _records(stream: bytes, at: int) -> Iterator[Record]:
    while at < len(stream):
        if blank := LINE_END.match(stream, at):
            at = blank.end()
            continue
        first, fields, misquoted = at, [], False
        while True:
            field = FIELD.match(stream, at)
            assert field is not None
            if field[4] is None:
                if not field[2]:
                    raise OpenQuote(field.start())
                fields.append(field[1].replace(b'""', b'"'))
                misquoted |= bool(field[3])
            else:
                fields.append(field[4])
            at = field.end()
            if stream[at : at + 1] != b",":
                break
            at += 1
        line = 1 + len(LINE_END.findall(stream, 0, first))
        yield line, first, stream[first:at], [MISQUOTED] if misquoted else fields
        if end := LINE_END.match(stream, at):
            at = end.end()


def frame(chunks: list[bytes], target: int) -> tuple[CsvFramer, list[Framed]]:
    framer, blocks = CsvFramer(), []
    for chunk in chunks:
        framer.feed(chunk)
        blocks += framer.cut(target)
    return framer, blocks + framer.finish(target)


def records_of(blocks: list[Framed], width: int) -> list[Record]:
    found = []
    for data, shape in blocks:
        tokens = tokenise(data, shape.rows, range(width), width)
        columns = [column.to_pylist() for column in tokens.columns]
        for i in range(shape.rows):
            raw = data[tokens.starts[i] : tokens.ends[i]].tobytes()
            # Records of another width have no columns; only their fields are counted.
            fields = [column[i] or b"" for column in columns]
            if tokens.misquoted[i]:
                assert set(fields) == {b""}
                fields = [MISQUOTED]
            elif tokens.fields[i] != width:
                assert set(fields) == {b""}
                fields = [b"?"] * int(tokens.fields[i])
            line = shape.first_line + int(tokens.lines[i])
            found.append((line, shape.offset + int(tokens.starts[i]), raw, fields))
    return found


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


pieces = st.sampled_from(
    [b'"', b",", b"\n", b"\r", b"\r\n", b'""', b"a", b"bc", b" ", b"\xc3\xa4", b"\xff", b"\0"]
)
bodies = st.lists(pieces, max_size=40).map(b"".join)


@given(
    st.sampled_from([b"", BOM, b"\n\r\n", BOM + b"\n"]),
    bodies,
    st.lists(st.integers(0, 200), max_size=6),
    st.integers(1, 50),
)
def test_any_chunks_and_block_sizes_give_the_records_of_the_oracle(
    lead: bytes, body: bytes, cuts: list[int], target: int
) -> None:
    stream = lead + b"a,b,c\n" + body
    if (place := open_quote(stream)) is not None:
        with pytest.raises(CorruptStreamError) as caught:
            frame(split(stream, cuts), target)
        line = 1 + len(LINE_END.findall(stream, 0, place))
        assert caught.value.attributes == {"format": "CSV", "line": str(line), "byte_offset": str(place)}
        return
    framer, blocks = frame(split(stream, cuts), target)
    assert framer.header == b"a,b,c"
    expected = [
        (line, offset, raw, fields if len(fields) == 3 or fields == [MISQUOTED] else [b"?"] * len(fields))
        for line, offset, raw, fields in oracle(stream)[1:]
    ]
    assert records_of(blocks, 3) == expected


@given(bodies, st.lists(st.integers(0, 200), max_size=6), st.integers(1, 50))
def test_blocks_are_the_same_whatever_the_chunks_and_cover_the_stream(
    body: bytes, cuts: list[int], target: int
) -> None:
    body = closed(body)
    stream = b"a,b,c\n" + body
    _, whole = frame([stream], target)
    _, parts = frame(split(stream, cuts), target)
    assert [(data.tobytes(), shape) for data, shape in parts] == [
        (data.tobytes(), shape) for data, shape in whole
    ]
    assert b"".join(data.tobytes() for data, _ in whole) == body
    at, row, line = 6, 0, 2
    for _, shape in whole:
        assert (shape.offset, shape.first_row, shape.first_line) == (at, row, line)
        at, row, line = at + shape.nbytes, row + shape.rows, line + shape.lines


@given(
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\n\r\n"]),
    bodies,
    st.lists(st.integers(0, 200), max_size=6),
    st.integers(1, 50),
)
def test_checksums_cover_the_stream_up_to_each_block_edge_and_to_its_end(
    lead: bytes, body: bytes, cuts: list[int], target: int
) -> None:
    stream = closed(lead + b"a,b,c\n" + body)
    framer, fed, blocks = CsvFramer(), b"", []
    for chunk in split(stream, cuts):
        framer.feed(chunk)
        fed += chunk
        blocks += framer.cut(target)
        assert framer.received_crc32c == google_crc32c.value(fed)
    blocks += framer.finish(target)
    for _, shape in blocks:
        assert shape.crc32c == google_crc32c.value(stream[: shape.offset + shape.nbytes])
    assert framer.crc32c == framer.received_crc32c == google_crc32c.value(stream)


def test_blank_lines_before_the_header_are_not_kept() -> None:
    framer = CsvFramer()
    for _ in range(100):
        framer.feed(b"\n" * 100_000)
        framer.cut(1 << 20)
        assert framer.received - framer.offset <= 1
    framer.feed(b"a,b,c\nx,y,z\n")
    (block,) = framer.finish(1 << 20)
    assert (framer.header, block[1].first_line, block[1].offset) == (b"a,b,c", 10_000_002, 10_000_006)


@given(bodies, st.integers(1, 30), st.integers(0, 10))
def test_a_framer_rebuilt_at_a_block_edge_goes_on_as_if_nothing_had_happened(
    body: bytes, target: int, resume_after: int
) -> None:
    stream = closed(b"a,b,c\r\n" + body)
    _, blocks = frame([stream], target)
    edge = blocks[: resume_after % (len(blocks) + 1)]
    framer = CsvFramer()
    if edge:
        last = edge[-1][1]
        framer = CsvFramer(
            first_row=last.first_row + last.rows,
            line=last.first_line + last.lines,
            offset=last.offset + last.nbytes,
            header=b"a,b,c",
            crc32c=last.crc32c,
        )
    framer.feed(stream[framer.offset :])
    rest = framer.cut(target) + framer.finish(target)
    assert [(data.tobytes(), shape) for data, shape in edge + rest] == [
        (data.tobytes(), shape) for data, shape in blocks
    ]


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        (b"x,y,z", [b"x", b"y", b"z"]),
        (b'"x","y","z"', [b"x", b"y", b"z"]),
        (b'"a,b","c\nd","e\r\nf"', [b"a,b", b"c\nd", b"e\r\nf"]),
        (b'"say ""hi""",,""', [b'say "hi"', b"", b""]),
        (b'5" pipe,6" pipe,x', [b'5" pipe', b'6" pipe', b"x"]),
        (b'"a"b"c",d,e', [MISQUOTED]),
        (b'd,"a" ,e', [MISQUOTED]),
        (b'd,"The \\"best\\" of, all",e', [MISQUOTED]),
        (b' "a",b,c', [b' "a"', b"b", b"c"]),
    ],
)
def test_quotes_open_at_the_start_of_a_field_only(record: bytes, fields: list[bytes]) -> None:
    _, blocks = frame([b"a,b,c\n" + record + b"\n1,2,3\n"], 1 << 20)
    assert [found[3] for found in records_of(blocks, 3)] == [fields, [b"1", b"2", b"3"]]


OPEN: list[tuple[bytes, str, str]] = [
    (b'a,b,c\n1,2,"3\n4,5,6\n', "2", "10"),
    (b'a,b,c\n1,2,3\n"4\r\n\r4",5" x,"6""\n7,8,9', "5", "25"),
    (b'a,b,c\n1,2,"', "2", "10"),
    (b'a,b,"c\n1,2,3\n', "1", "4"),
    (BOM + b'\n"a,b', "2", "4"),
]


@pytest.mark.parametrize(("stream", "line", "offset"), OPEN)
@pytest.mark.parametrize("target", [1, 7, 1 << 20])
def test_an_open_quote_fails_a_stream_that_ends_naming_where(
    stream: bytes, line: str, offset: str, target: int
) -> None:
    for chunks in ([stream], split(stream, list(range(len(stream))))):
        with pytest.raises(CorruptStreamError) as caught:
            frame(chunks, target)
        assert caught.value.attributes == {"format": "CSV", "line": line, "byte_offset": offset}
        assert stream[int(offset)] == ord('"')


def test_a_backslash_before_a_quote_is_named_where_a_quote_stays_open_or_a_record_grows_too_large() -> None:
    spark = b'a,b\n1,"12\\""\n2,3\n'
    with pytest.raises(
        CorruptStreamError, match=r"line 2, byte offset 6, .* a quote stands behind a backslash"
    ):
        frame([spark], 100)
    with pytest.raises(
        RecordTooLargeError, match=r"line 2, .* in Spark by setting its option escape to a quote"
    ):
        frame([spark + b"4,5\n" * MAX_RECORD_BYTES], 100)


def test_flush_hands_out_whole_records_only_and_waits_for_the_byte_after_a_cr() -> None:
    framer = CsvFramer()
    framer.feed(b"a,b\n1,2\n3,4\r")
    assert [data.tobytes() for data, _ in framer.flush(1 << 20)] == [b"1,2\n"]
    framer.feed(b"\n5")
    assert [data.tobytes() for data, _ in framer.flush(1 << 20)] == [b"3,4\r\n"]
    assert [data.tobytes() for data, _ in framer.finish(1 << 20)] == [b"5"]
    assert framer.received == framer.offset == 14


def test_a_stream_without_records_has_no_header() -> None:
    for stream in (b"", BOM, b"\n\r\n\r"):
        framer, blocks = frame([stream], 100)
        assert framer.header is None
        assert blocks == []


def test_a_header_alone_gives_no_block() -> None:
    framer, blocks = frame([b"\n" + BOM[:0] + b"a,b"], 100)
    assert framer.header == b"a,b"
    assert blocks == []


def test_a_record_of_the_limit_passes_and_a_longer_one_names_its_line_and_offset() -> None:
    longest = b"x" * MAX_RECORD_BYTES
    _, blocks = frame([b"a\n1\n" + longest + b"\r\n2\n"], 1 << 19)
    assert sum(shape.rows for _, shape in blocks) == 3
    for chunks in ([b"a\n1\n\n" + longest + b"x\n2\n"], split(b'a\n1\n\n"\n' + longest, [7, 99, 1 << 19])):
        with pytest.raises(RecordTooLargeError) as caught:
            frame(chunks, 8 << 20)
        assert caught.value.attributes == {"line": "4", "byte_offset": "5", "limit_bytes": "1048576"}


def test_blocks_are_bounded_by_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace_compute.kernels.framing.MAX_BLOCK_ROWS", 4)
    for ending in (b"\n", b"\r\n", b"\r"):
        stream = b"a" + ending + (b"x" + ending) * 10
        for chunks in ([stream], split(stream, list(range(len(stream))))):
            _, blocks = frame(chunks, 1 << 20)
            assert [shape.rows for _, shape in blocks] == [4, 4, 2]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_other_encodings_are_refused(encoding: str) -> None:
    stream = "user_id,item_id\n1,2\n".encode(encoding)
    with pytest.raises(BadEncodingError):
        frame(split(stream, [1, 2, 3]), 100)


def test_binary_garbage_without_any_line_end_is_refused_as_such() -> None:
    with pytest.raises(BadEncodingError):
        frame([b"\x7fELF" + bytes(2 * MAX_RECORD_BYTES)], 8 << 20)


def test_memory_is_that_of_a_block_not_of_the_stream() -> None:
    framer = CsvFramer()
    framer.feed(b"a\n")
    chunk = b"x,y,z\n" * 1000
    for _ in range(2000):
        framer.feed(chunk)
        framer.cut(1 << 16)
        kept = [each for each in vars(framer).values() if isinstance(each, np.ndarray)]
        assert sum(each.nbytes for each in kept) <= 1 << 20


def test_a_block_keeps_no_more_alive_than_itself_and_some_chunks() -> None:
    target, chunk = 1 << 20, 1 << 16
    framer, kept = CsvFramer(), []
    framer.feed(b"a,b\n")
    for _ in range(40 * target // chunk):
        framer.feed(b"1,2\n" * (chunk // 4))
        # A block is a view of the buffer it was cut from.
        kept += [block.base.nbytes for block, _ in framer.cut(target) if block.base is not None]
    assert len(kept) >= 39
    assert max(kept) <= target + 4 * chunk


def test_a_block_that_does_not_hold_its_records_is_refused() -> None:
    with pytest.raises(ValueError, match="3 records"):
        tokenise(np.frombuffer(b"a\nb\n", np.uint8), 3, [0], 1)
    with pytest.raises(ValueError, match="1 records"):
        tokenise(np.frombuffer(b"a\nb\n", np.uint8), 1, [0], 1)
