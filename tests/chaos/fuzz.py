"""Fuzzing of framing and parsing: `python -m chaos.fuzz --seconds 60 --seed 1`; of calls: `--calls 100000`.

Framing must find the records and fields that Python's csv module finds, whatever the chunks and
block sizes; of JSON lines, the objects and values that its json module finds. Parsing must account for
every record, and raise nothing but errors of the tree; so must decoding, of damaged Arrow, Parquet, gzip
and zstd. Inputs are made by a seeded generator, in a child process: whatever ends it is a finding too.
Calls (`chaos.calls`) go to a server of their own.
"""

import argparse
import csv
import io
import json
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from harness.server import start_server
from harness.streams import compress, decoded, ipc_file, ipc_stream, parquet, staged

from chaos.calls import try_calls
from headrace_compute.errors import CorruptStreamError, HeadraceError
from headrace_compute.formats.header import check_header
from headrace_compute.ingest.block import findings_of
from headrace_compute.ingest.examine import examine
from headrace_compute.kernels.framing import CsvFramer, Framed, Framer, LineFramer
from headrace_compute.kernels.objects import Kind, take_apart
from headrace_compute.kernels.tokens import tokenise
from headrace_compute.model import (
    Block,
    Compression,
    DataType,
    StagedSource,
    StoreConfig,
    StreamFormat,
    UploadSpec,
)

LIMIT = 1 << 30
"""Field size for Python's csv: none that counts."""

MISQUOTED = -1
"""In place of the fields of a record with text behind a closing quote."""

PIECES = [
    *(b'"', b'""', b",", b"\n", b"\r", b"\r\n", b" ", b"\t", b"\0", b"\xff", b"\xc3\xa4", b"\xef\xbb\xbf"),
    *(b"a", b"bc", b"'", b"\\", b";", b"1", b"-", b"5.0", b"nan", b"NULL", b"1e999", b"view", b"click"),
    *(b"2024-01-01", b"2024-01-01T00:00:00Z", b"9999-12-31T23:59:60+99:99", b"u1", b"i1", b"\x1b", b"\x85"),
]
HEADERS = {
    "interactions": b"user_id,item_id,interaction_type,timestamp,rating",
    "items": b"item_id,title,category,price,brand,description",
}
LINES = (
    b'{"item_id": "i1", "title": "A \\"title\\" \\ud83d\\ude00", "price": 9.99, "tags": [1, {"a": null}]}\n',
    b'{"item_id":18446744073709551616,"title":"t","price":-1e-3,"brand":null,"x":true}\r\n',
)
LINE_PIECES = [
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b'"',
        b"\\",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\0",
        b"\xff",
        b"\xc3\xa4",
    ),
    *(
        b"0",
        b"-",
        b".",
        b"e",
        b"1e999",
        b"NaN",
        b"-Infinity",
        b"true",
        b"null",
        b"\\u0061",
        b"\\ud800",
        b'"price":',
    ),
]
ITEM_KEYS = ("item_id", "title", "price", "brand")
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
ROWS = {
    "interactions": b"u1,i1,view,2024-01-01T00:00:00Z,4.5\n",
    "items": b'i1,"A title, with comma",books,9.99,Brand,"Two\nlines"\n',
}


def body(dice: random.Random) -> bytes:
    """Pieces that mean something to a CSV reader, in any order."""
    return b"".join(dice.choice(PIECES) for _ in range(dice.randrange(60)))


def mutated(dice: random.Random, data: bytes, pieces: Sequence[bytes] = PIECES) -> bytes:
    """Valid bytes with some damage."""
    damaged = bytearray(data)
    for _ in range(dice.randrange(1, 6)):
        at = dice.randrange(len(damaged) + 1)
        match dice.randrange(4):
            case 0:
                damaged[at:at] = dice.choice(pieces)
            case 1:
                del damaged[at : at + dice.randrange(1, 8)]
            case 2 if at < len(damaged):
                damaged[at] = dice.randrange(256)
            case _:
                damaged[at:at] = damaged[at : at + dice.randrange(40)]
    return bytes(damaged)


def framed(
    dice: random.Random, stream: bytes, targets: tuple[int, ...] = (1, 7, 64, 1 << 20)
) -> tuple[bytes, list[Framed]]:
    """Header and blocks of a CSV stream fed in random chunks, flushed now and then."""
    framer = CsvFramer()
    blocks = blocks_of(dice, framer, stream, targets)
    return framer.header or b"", blocks


def blocks_of(
    dice: random.Random, framer: Framer, stream: bytes, targets: tuple[int, ...] = (1, 7, 64, 1 << 20)
) -> list[Framed]:
    """Blocks of a stream fed in random chunks, flushed now and then."""
    blocks, at = [], 0
    target = dice.choice(targets)
    while at < len(stream):
        size = dice.choice((1, 3, 17, 200))
        framer.feed(stream[at : at + size])
        blocks += framer.flush(target) if dice.random() < 0.1 else framer.cut(target)
        at += size
    return blocks + framer.finish(target)


def records_of(blocks: list[Framed], width: int) -> list[list[bytes] | int]:
    """Fields of every record of the right width; of others, only how many there are."""
    found: list[list[bytes] | int] = []
    for data, shape in blocks:
        if not shape.rows:
            continue
        tokens = tokenise(data, shape.rows, range(width), width)
        columns = [column.to_pylist() for column in tokens.columns]
        for row in range(shape.rows):
            count = MISQUOTED if tokens.misquoted[row] else int(tokens.fields[row])
            found.append([column[row] or b"" for column in columns] if count == width else count)
    return found


def oracle(stream: bytes, width: int) -> list[list[bytes] | int]:
    """What Python's csv module finds; Latin-1 takes every byte for a character and back."""
    csv.field_size_limit(LIMIT)
    text = io.StringIO(stream.removeprefix(b"\xef\xbb\xbf").decode("latin-1"), newline="")
    records = [[field.encode("latin-1") for field in record] for record in csv.reader(text) if record]
    return [record if len(record) == width else len(record) for record in records]


def well_quoted(stream: bytes) -> bool:
    """Whether Python's csv module finds neither text behind a closing quote nor an open one at the end."""
    text = io.StringIO(stream.removeprefix(b"\xef\xbb\xbf").decode("latin-1"), newline="")
    try:
        list(csv.reader(text, strict=True))
    except csv.Error:
        return False
    return True


def check_framing(dice: random.Random) -> None:
    """One stream: the same records as the oracle's."""
    stream = b"a,b,c\n" + (body(dice) if dice.random() < 0.7 else mutated(dice, b'1,2,3\n4,"5\n",6\r\n' * 4))
    try:
        _, blocks = framed(dice, stream)
    except CorruptStreamError:
        assert not well_quoted(stream), f"framing of {stream!r} finds an open quote"
        return
    found, expected = records_of(blocks, 3), oracle(stream, 3)[1:]
    assert (MISQUOTED in found) != well_quoted(stream), f"framing of {stream!r}: {found}"
    expected = [
        MISQUOTED if ours == MISQUOTED else theirs for ours, theirs in zip(found, expected, strict=True)
    ]
    assert found == expected, f"framing of {stream!r}: {found} instead of {expected}"
    assert sum(shape.rows for _, shape in blocks) == len(expected)
    assert b"".join(data.tobytes() for data, _ in blocks) == stream[6:], f"bytes of {stream!r} are missing"


def check_json_lines(dice: random.Random) -> None:
    """One stream of JSON lines: the same objects and values as the json module's, and as many records."""
    lines = b"".join(dice.choice(LINES) for _ in range(dice.randrange(1, 5)))
    stream = mutated(dice, lines, LINE_PIECES)
    for data, shape in blocks_of(dice, LineFramer(), stream):
        objects = take_apart(data, shape.rows, ITEM_KEYS)
        for row in range(shape.rows):
            line = data[objects.starts[row] : objects.ends[row]].tobytes()
            found = None if objects.faults[row] else kinds_of(objects.kinds[:, row].tolist())
            assert found == (expected := json_oracle(line)), f"{line!r}: {found} instead of {expected}"
    rows = sum(shape.rows for _, shape in blocks_of(dice, LineFramer(), stream))
    text = stream.removeprefix(b"\xef\xbb\xbf")
    assert rows == sum(bool(line.strip(b" \t\r")) for line in text.split(b"\n")), f"lines of {stream!r}"


def kinds_of(kinds: list[int]) -> dict[str, Kind]:
    """The kind of each key that is there; NaN and infinities are floats, as to Python."""
    told = {key: Kind(kind) for key, kind in zip(ITEM_KEYS, kinds, strict=True) if kind}
    return {key: Kind.FLOAT if kind == Kind.NOT_FINITE else kind for key, kind in told.items()}


def json_oracle(line: bytes) -> dict[str, Kind] | None:
    """The same by Python's json module; None if it finds no object, or a key of ours twice."""
    twice = False

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice = any(count > 1 for key, count in Counter(key for key, _ in found).items() if key in ITEM_KEYS)
        return dict(found)

    try:
        found = json.loads(line.decode("utf-8", "surrogateescape"), object_pairs_hook=pairs)
    except ValueError:
        return None
    # Pairs are told from the inside to the outside, so what is known in the end is of the line's object.
    if not isinstance(found, dict) or twice:
        return None
    return {key: kind_of(value) for key, value in found.items() if key in ITEM_KEYS}


def kind_of(value: Any) -> Kind:
    """The kind of a value of the json module."""
    kinds = {
        type(None): Kind.NULL,
        bool: Kind.BOOLEAN,
        int: Kind.INTEGER,
        float: Kind.FLOAT,
        str: Kind.STRING,
    }
    return kinds.get(type(value), Kind.NESTED)


def check_parsing(dice: random.Random) -> None:
    """One stream, from its header to findings: every record accepted or rejected, with a reason."""
    data_types: tuple[DataType, ...] = ("interactions", "items")
    data_type = dice.choice(data_types)
    header = HEADERS[data_type] if dice.random() < 0.8 else mutated(dice, HEADERS[data_type])
    rows = ROWS[data_type] * dice.randrange(1, 5)
    stream = header + b"\n" + (body(dice) if dice.random() < 0.3 else mutated(dice, rows))
    try:
        line, blocks = framed(dice, stream, (64, 1 << 20))
        columns = check_header(StoreConfig("", "", "", "", ""), data_type, line, dice.random() < 0.2)
    except HeadraceError:
        return
    spec = UploadSpec("up", data_type, "d/", "r/", "s/", 0, 2_000_000_000_000_000, columns)
    for index, (data, shape) in enumerate(blocks):
        if shape.rows == 0:
            continue
        end, rows_ = shape.offset + shape.nbytes, shape.rows
        block = Block(index, "csv", shape.offset, end, shape.first_row, rows_, shape.first_line)
        check_accounted(spec, block, data, repr(stream))


def check_accounted(
    spec: UploadSpec, block: Block, payload: np.ndarray | pa.Table | bytes, what: str
) -> None:
    """Every row of a block is accepted or rejected, and the findings say so."""
    rows, examined = block.rows, examine(spec, block, payload)
    findings = findings_of(spec, block, examined)
    assert findings.received == rows, f"{what}: {findings.received} records instead of {rows}"
    assert examined.keep.size == findings.accepted
    told = set(examined.keep.tolist())
    for failure in examined.failures:
        told |= set(np.asarray(failure.rows).tolist())
    assert told == set(range(rows)), f"{what}: a record is neither accepted nor rejected"


def broken(dice: random.Random, data: bytes) -> bytes:
    """Binary data with some bits turned, pieces taken out, doubled or overwritten, or the end cut off."""
    damaged = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8))):
        at, size = dice.randrange(len(damaged)), dice.choice((1, 4, 8, 64))
        match dice.randrange(6):
            case 0 | 1:
                damaged[at] ^= 1 << dice.randrange(8)
            case 2:
                damaged[at : at + size] = dice.choice(EXTREMES).to_bytes(8, "little")[: min(8, size)]
            case 3:
                del damaged[at : at + size]
            case 4:
                damaged[at:at] = damaged[at : at + size]
            case _:
                del damaged[max(at, 1) :]
        damaged = damaged or bytearray(data)
    return bytes(damaged)


def check_decoding(dice: random.Random) -> None:
    """One staged stream of a binary format: refused, or every row of it accepted or rejected."""
    with tempfile.TemporaryDirectory(prefix="headrace-fuzz-") as folder:
        config, source = staged_stream(dice, Path(folder))
        try:
            blocks = decoded(config, source)
        except HeadraceError:
            return
    for block, columns, payload in blocks:
        spec = UploadSpec("up", source.data_type, "d/", "r/", "s/", 0, 2_000_000_000_000_000, columns)
        check_accounted(spec, block, payload, str(source))


def staged_stream(dice: random.Random, folder: Path) -> tuple[StoreConfig, StagedSource]:
    """Some rows in a binary format, damaged mostly, in a store of their own."""
    rows = dice.randrange(1, 300)
    table = pa.table(
        {
            "user_id": [f"u{row % 7}" for row in range(rows)],
            "item_id": pa.array([f"i{row % 5}" for row in range(rows)]).dictionary_encode()
            if dice.random() < 0.3
            else [f"i{row % 5}" for row in range(rows)],
            "interaction_type": ["view"] * rows,
            "timestamp": pa.array(range(rows), pa.timestamp(dice.choice(("s", "ms", "us", "ns")), "UTC")),
            "rating": pa.array([None if row % 3 else row % 5 for row in range(rows)], pa.float64()),
        }
    )
    text = HEADERS["interactions"] + b"\n" + ROWS["interactions"] * rows
    codec = dice.choice((None, "lz4", "zstd"))
    streams: tuple[Callable[[], tuple[StreamFormat, Compression, bytes]], ...] = (
        lambda: ("arrow_ipc", "none", ipc_stream(table, compression=codec)),
        lambda: ("arrow_ipc", "none", ipc_file(table, compression=codec)),
        lambda: ("parquet", "none", parquet(table, compression=codec or "none")),
        lambda: ("csv", "gzip", compress(text, "gzip")),
        lambda: ("csv", "zstd", compress(text, "zstd")),
    )
    format, compression, data = dice.choice(streams)()
    damaged = data if dice.random() < 0.05 else broken(dice, data)
    return staged(folder, damaged, format, compression, piece_bytes=1 << 20, block_bytes=4_000)


CHECKS: dict[str, Callable[[random.Random], None]] = {
    "framing": check_framing,
    "json lines": check_json_lines,
    "parsing": check_parsing,
    "decoding": check_decoding,
}


def fuzz(seed: int, seconds: float, count: int = 0) -> int:
    """Tries inputs for a time, or a number of them; prints how many, and returns how many were wrong."""
    tried, wrong, end = Counter[str](), 0, time.monotonic() + seconds
    while (tried.total() < count if count else time.monotonic() < end) and wrong < 10:
        # Parsing takes eighty times as long: validation is set up anew for each input.
        for name in ("parsing", *["decoding"] * 4, *["framing"] * 80, *["json lines"] * 80):
            check, number = CHECKS[name], tried[name]
            tried[name] += 1
            try:
                check(random.Random(f"{seed}/{name}/{number}"))
            except HeadraceError as error:
                wrong += 1
                print(f"{name} {seed}/{number}: {error!r} where none belongs", flush=True)
            except Exception:
                wrong += 1
                print(f"{name} {seed}/{number}:\n{traceback.format_exc()}", flush=True)
    print(
        "fuzzing: " + ", ".join(f"{count:,} inputs of {name}" for name, count in tried.items()),
        f"seed {seed}, {wrong} wrong",
        sep=", ",
        flush=True,
    )
    return wrong


def fuzz_calls(seed: int, count: int) -> int:
    """Makes calls to a server; prints how they ended, and returns how many ended wrongly."""
    with tempfile.TemporaryDirectory(prefix="headrace-fuzz-") as folder:
        server = start_server(Path(folder) / "data")
        try:
            faults, codes = try_calls(server.address, "fuzz", str(seed), count)
            if server.process.poll() is not None:
                faults.append(f"the server ended with {server.process.returncode}")
        finally:
            server.stop()
    print(*faults, sep="\n", flush=True)
    ends = ", ".join(f"{number:,} {code}" for code, number in codes.most_common())
    print(f"fuzzing: {codes.total():,} calls, {ends}, seed {seed}, {len(faults)} wrong", flush=True)
    return len(faults)


def run(seed: int, seconds: float) -> int:
    """As `fuzz`, in a child that may die."""
    command = [sys.executable, "-m", "chaos.fuzz", "--seed", str(seed), "--seconds", str(seconds)]
    status = subprocess.run(command, check=False).returncode
    if status < 0:
        print(f"fuzzing: the process died of signal {-status}, seed {seed}")
    return status


def main() -> int:
    """Runs in this process; 1 if an input was treated wrongly."""
    parser = argparse.ArgumentParser(prog="chaos.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--count", type=int, default=0, help="inputs to try, instead of a time")
    parser.add_argument("--calls", type=int, default=0, help="calls to make to a server, instead")
    given = parser.parse_args()
    if given.calls:
        return int(fuzz_calls(given.seed, given.calls) > 0)
    return int(fuzz(given.seed, given.seconds, given.count) > 0)


if __name__ == "__main__":
    sys.exit(main())
