"""JSON lines against oracles: lines by bytes.split, objects by Python's json module with exact numbers."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace_compute.errors import BadEncodingError, RecordTooLargeError, UnknownColumnError
from headrace_compute.ingest.parse import Parsed, parse
from headrace_compute.ingest.rejects import reject_table
from headrace_compute.kernels.framing import Framed, LineFramer
from headrace_compute.kernels.objects import MAX_DEPTH
from headrace_compute.model import MAX_RECORD_BYTES, UploadSpec

BOM = b"\xef\xbb\xbf"
SPACE = b" \t\r"
SPEC = UploadSpec("up", "items", "d/", "r/", "s/", 0, 0)
COLUMNS = ("item_id", "title", "category", "price", "brand", "description")


def frame(chunks: Sequence[bytes], target: int, framer: LineFramer | None = None) -> list[Framed]:
    framer = framer or LineFramer()
    blocks = []
    for chunk in chunks:
        framer.feed(chunk)
        blocks += framer.cut(target)
    return blocks + framer.finish(target)


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


def lines_of(stream: bytes) -> list[tuple[int, int, bytes]]:
    """Number, offset and bytes of each line that is not blank."""
    found, offset = [], 0
    for number, line in enumerate(stream.split(b"\n"), start=1):
        skipped = len(BOM) if number == 1 and line.startswith(BOM) else 0
        if line[skipped:].strip(SPACE):
            found.append((number, offset + skipped, line[skipped:].removesuffix(b"\r")))
        offset += len(line) + 1
    return found


def parsed(payload: np.ndarray, block: Any, spec: UploadSpec = SPEC) -> tuple[Parsed, list[dict[str, Any]]]:
    """A block, and its rejects."""
    found = parse(spec, block, payload)
    if not found.failures:
        return found, []
    return found, reject_table(spec, block, found.records, found.failures).to_pylist()


def parse_lines(*lines: bytes, spec: UploadSpec = SPEC) -> tuple[Parsed, list[dict[str, Any]]]:
    ((payload, shape),) = frame([b"\n".join(lines)], 1 << 30)
    return parsed(payload, shape.block(0), spec)


pieces = st.sampled_from([b"{", b"}", b"\n", b"\n", b"\r", b"\r\n", b" ", b"\t", b'"', b"ab", b"\0", b"\xff"])
streams = st.tuples(st.sampled_from([b"", BOM, b"\n\r\n"]), st.lists(pieces, max_size=40).map(b"".join)).map(
    b"".join
)


@given(streams, st.lists(st.integers(0, 200), max_size=6), st.integers(1, 50))
def test_any_chunks_and_block_sizes_give_the_lines_of_the_stream(
    stream: bytes, cuts: list[int], target: int
) -> None:
    blocks = frame(split(stream, cuts), target)
    found = []
    for index, (payload, shape) in enumerate(blocks):
        records = parse(SPEC, shape.block(index), payload).records
        rows = np.arange(shape.rows)
        numbers, offsets = records.lines(rows).to_pylist(), records.offsets(rows).to_pylist()
        found += list(zip(numbers, offsets, records.raw(rows).to_pylist(), strict=True))
    assert found == [
        (number, offset, line.decode("utf-8", "replace")) for number, offset, line in lines_of(stream)
    ]
    whole = frame([stream], target)
    assert [(data.tobytes(), shape) for data, shape in blocks] == [
        (data.tobytes(), shape) for data, shape in whole
    ]
    assert b"".join(data.tobytes() for data, _ in blocks) == stream.removeprefix(BOM)
    if blocks:
        assert blocks[-1][1].crc32c == google_crc32c.value(stream)


@given(streams, st.integers(1, 30))
def test_a_framer_built_anew_at_a_block_edge_goes_on_as_the_old_one(stream: bytes, target: int) -> None:
    whole = frame([stream], target)
    for number, (_, shape) in enumerate(whole, start=1):
        line, end = shape.first_line + shape.lines, shape.offset + shape.nbytes
        framer = LineFramer(shape.first_row + shape.rows, line, end, shape.crc32c)
        rest = frame([stream[end:]], target, framer)
        assert [shape for _, shape in rest] == [shape for _, shape in whole[number:]]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""])
def test_a_line_of_the_largest_size_is_taken_and_a_larger_one_is_named(ending: bytes) -> None:
    line = b'{"item_id":"' + b"x" * (MAX_RECORD_BYTES - 14) + b'"}'
    ((_, shape),) = frame(split(b"{}\n" + line + ending, [MAX_RECORD_BYTES + 3]), 1 << 22)
    assert shape.rows == 2
    for larger in (line.replace(b'"}', b'x"}'), b" " * (MAX_RECORD_BYTES + 1)):
        with pytest.raises(RecordTooLargeError) as caught:
            frame([b"{}\n" + larger + ending], 1 << 10)
        assert caught.value.attributes == {
            "line": "2",
            "byte_offset": "3",
            "limit_bytes": str(MAX_RECORD_BYTES),
        }


@pytest.mark.parametrize("start", [b"\xff\xfe{\0", b"\0\0\xfe\xff", b"PK\x03\x04", b"\x1f\x8b\x08\0"])
def test_other_encodings_and_archives_are_refused(start: bytes) -> None:
    with pytest.raises(BadEncodingError):
        frame([start + b"...\n"], 100)


@dataclass(frozen=True)
class Number:
    """A number as it is written."""

    text: str

    @property
    def is_integer(self) -> bool:
        return self.text.lstrip("-").isdigit()


NOT_FINITE = "\ud800 no number"
TWICE = "\ud800 named twice"


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key of the contract that is there twice is kept for the oracle to see."""
    found = dict(pairs)
    for name in COLUMNS:
        if sum(key == name for key, _ in pairs) > 1:
            found[name] = TWICE
    return found


def oracle(line: bytes) -> dict[str, Any] | None:
    """The object of a line; None if it is none of ours. Bytes that are not UTF-8 become surrogates."""
    try:
        found = json.loads(
            line.decode("utf-8", "surrogateescape"),
            parse_float=Number,
            parse_int=Number,
            parse_constant=lambda _: NOT_FINITE,
            object_pairs_hook=without_repeats,
        )
    except ValueError:
        return None
    return found if isinstance(found, dict) and TWICE not in found.values() else None


def expected(value: Any, name: str) -> tuple[Any, str]:
    """What a column holds for a JSON value, and the code of its reject, by docs/semantics.md."""
    if value is None:
        return None, ""
    if name == "price":
        if value == NOT_FINITE:
            return None, "BAD_NUMBER"
        number = float(value.text) if isinstance(value, Number) else None
        is_infinite = number is not None and abs(number) == float("inf")
        return (None, "BAD_NUMBER") if is_infinite else (number, "BAD_TYPE" if number is None else "")
    if isinstance(value, Number) and value.is_integer:
        return value.text if value.text != "-0" else "0", ""
    if not isinstance(value, str) or value == NOT_FINITE:
        return None, "BAD_TYPE"
    is_text = not any("\ud800" <= character <= "\udfff" for character in value)
    return (value or None, "") if is_text else (None, "BAD_TEXT")


def check_line(line: bytes) -> None:
    found, rejects = parse_lines(b"{}", line)
    told = {(reject["column"], reject["code"]) for reject in rejects}
    assert {(reject["line"], reject["byte_offset"]) for reject in rejects} <= {(2, 3)}
    values = oracle(line)
    if values is None:
        assert told == {("", "BAD_JSON")}
        assert found.table.slice(1).to_pylist() == [dict.fromkeys(COLUMNS)]
        assert found.unknown == {}
        return
    wanted = {name: expected(values.get(name), name) for name in COLUMNS}
    assert told == {(name, code) for name, (_, code) in wanted.items() if code}
    (row,) = found.table.slice(1).to_pylist()
    for name, (value, code) in wanted.items():
        assert row[name] == value or code == "BAD_TEXT"
    assert found.present == values.keys() & set(COLUMNS)
    # Names are shortened, and surrogates shown as U+FFFD, so that several may become one.
    assert sum(found.unknown.values()) == len(values.keys() - set(COLUMNS))


keys = st.sampled_from([*COLUMNS, "colour", "item_id2", "pric", ""]) | st.text(max_size=3)
numbers = st.integers() | st.floats() | st.sampled_from([2**64, -(2**70), 10**400, 1e-320, 0.1])
texts = st.text(max_size=20) | st.sampled_from(["\ud800", "\udc00\ud800", "\U0001f600", "a\0b", '\\"/\t'])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """A line of a JSON library."""
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :\r ")]))
    row = draw(st.dictionaries(keys, values, max_size=8))
    ascii = draw(st.booleans())
    return json.dumps(row, ensure_ascii=ascii, separators=separators).encode("utf-8", "surrogatepass")


TOKENS = [
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b" ", b"\t", b"\r", b"true", b"false", b"null", b"nul"),
    *(b"\\", b"\\u00e4", b"\\ud83d", b"\\ude00", b"\\u00", b"\\q", b"\0", b"\x1f", b"\x7f", b"\xff", BOM),
    *(b"0", b"-", b"1", b".", b"e", b"+", b"E5", b"-0", b"4.5", b"1e999", b"NaN", b"Infinity", b"a" * 9),
    *(b'"item_id"', b'"price":', b',"title":', b'{"item_id":"i"', b'{"price":', b'"pr\\u0069ce":'),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A line with some bytes lost, put in or overwritten."""
    line = bytearray(draw(objects()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(line)))
        line[at : at + draw(st.integers(0, 4))] = draw(st.sampled_from([b"", *TOKENS]))
    return bytes(line)


soup = st.lists(st.sampled_from(TOKENS), min_size=1, max_size=20).map(b"".join)


@given((objects() | damaged() | soup).filter(lambda line: bool(line.strip(SPACE))))
@example(b'{"price":1}{"price":2}')
@example(b'{"item_id":"a","it\\u0065m_id":"b"}')
@example(b'{"item_id":-0,"price":-0,"title":-0.0}')
@example(b'{"x":{"price":1,"price":2},"x":[[],{}],"price":0}')
def test_any_line_gives_the_values_that_it_spells_or_a_reject_of_that_line(line: bytes) -> None:
    check_line(line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[1]", "The line is not a JSON object; write one object per line."),
        (b'"text"', "The line is not a JSON object; write one object per line."),
        (b"item_id,title", "The line is not a JSON object; write one object per line."),
        (b'{"item_id": "i', "The line ends within its object; "),
        (b"{", "The line ends within its object; "),
        (b'{"item_id": "i"} {}', "Text follows the object at byte 18 of the line; "),
        (b'{"item_id": "i",}', "The line is not JSON from byte 17 on; "),
        (b'{"price": 01}', "The line is not JSON from byte 12 on; "),
        (b"{'item_id': 1}", "The line is not JSON from byte 2 on; "),
        (b'{"title": "a\tb"}', "Byte 13 of the line is a control character in a string; "),
        (b'{"title": "\0"}', "Byte 12 of the line is a control character in a string; "),
        (b'{"price": 1, "price": 1}', "The object names a column again at byte 15 of the line; "),
        (b'{"x": ' + b"[" * 3_000 + b"]" * 3_000 + b"}", "The line is nested deeper than 1,000 levels; "),
    ],
)
def test_what_is_no_object_is_a_reject_that_says_where(line: bytes, message: str) -> None:
    found, (reject,) = parse_lines(b'{"item_id":"i","title":"t"}', b"", line, b'{"item_id":"j"}')
    assert (reject["row_number"], reject["line"], reject["code"]) == (1, 3, "BAD_JSON")
    assert reject["message"].startswith(message)
    assert reject["raw"] == line.decode()[:4096]
    assert found.table["item_id"].to_pylist() == ["i", None, "j"]
    assert found.unreadable.tolist() == [False, True, False]


@pytest.mark.parametrize("column", ["title", "colour"])
def test_nesting_up_to_the_limit_is_a_value_of_a_wrong_type(column: str) -> None:
    depth = MAX_DEPTH - 1
    line = json.dumps({"item_id": "i", column: 0}).encode()
    found, rejects = parse_lines(line.replace(b"0", b'{"x":[' * (depth // 2) + b"0" + b"]}" * (depth // 2)))
    assert [reject["code"] for reject in rejects] == ["BAD_TYPE"] * (column == "title")
    assert found.unknown == ({"colour": 1} if column == "colour" else {})


def test_numbers_of_any_length_are_judged_by_their_column() -> None:
    digits = "9" * 5_000
    found, rejects = parse_lines(
        f'{{"item_id":{digits},"price":{digits}}}'.encode(), f'{{"price":0.{digits}}}'.encode()
    )
    assert found.table["item_id"].to_pylist() == [digits, None]
    assert found.table["price"].to_pylist() == [None, 1.0]
    assert [(reject["line"], reject["column"], reject["code"]) for reject in rejects] == [
        (1, "price", "BAD_NUMBER")
    ]


def test_unknown_keys_are_counted_or_fail_the_stream_at_the_first_one() -> None:
    lines = [b"{}", b'{"a":1,"b":[{"c":2}],"":0,"a":2}', b'{"\\u0061":null,"item_id":"i"}']
    found, rejects = parse_lines(*lines)
    assert (found.unknown, rejects) == ({"a": 2, "b": 1, "": 1}, [])
    with pytest.raises(UnknownColumnError, match=r"in line 2 has the key a, outside the contract") as caught:
        parse_lines(*lines, spec=replace(SPEC, reject_unknown=True))
    assert caught.value.attributes == {"columns": "a", "line": "2"}
    with pytest.raises(UnknownColumnError, match=r"in line 1 has a key without a name, outside the contract"):
        parse_lines(b'{"":0}', spec=replace(SPEC, reject_unknown=True))


def test_half_of_a_surrogate_pair_is_told_apart_from_bytes_that_are_not_utf8() -> None:
    lines = [b'{"item_id":"a\\ud83d","title":"t"}', b'{"item_id":"a\xff","title":"t"}']
    found, rejects = parse_lines(*lines, b'{"item_id":"\\ud83d\\ude00","title":"t"}')
    assert [(reject["line"], reject["column"], reject["code"]) for reject in rejects] == [
        (1, "item_id", "BAD_TEXT"),
        (2, "item_id", "BAD_TEXT"),
    ]
    assert "has half of a surrogate pair" in rejects[0]["message"]
    assert "is not UTF-8; convert it" in rejects[1]["message"]
    assert found.table["item_id"].to_pylist()[2] == "\N{GRINNING FACE}"


def test_a_wrong_value_is_shown_as_it_was_sent() -> None:
    line = b'{"item_id": 1.50, "title": {"a": [1, "x"]}, "price": "4", "brand": "a\\u00e4", "category": true}'
    _, rejects = parse_lines(line)
    assert {reject["column"]: reject["value"] for reject in rejects} == {
        "item_id": "1.50",
        "title": '{"a": [1, "x"]}',
        "price": "4",
        "category": "true",
    }
    assert {reject["raw"] for reject in rejects} == {line.decode()}
