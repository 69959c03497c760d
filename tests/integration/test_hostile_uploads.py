"""Hostile bytes through a real server: a typed error, nothing left, and the neighbours never notice."""

import gzip
import json
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
from harness.dialogue import HEADER, Dialogue, chunk, finish, flush, header, lines
from harness.server import Server
from harness.streams import (
    INTERACTIONS,
    csv_bytes,
    encrypted_parquet,
    ipc_file,
    ipc_stream,
    json_lines,
    parquet,
    table_of,
    zstd,
)
from harness.watch import files_below

from headrace import Client
from headrace.v1 import upload_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

INVALID = grpc.StatusCode.INVALID_ARGUMENT
ARROW: dict[str, Any] = {"format": upload_pb2.FORMAT_ARROW_IPC}
PARQUET: dict[str, Any] = {"format": upload_pb2.FORMAT_PARQUET}
LINES: dict[str, Any] = {"format": upload_pb2.FORMAT_JSON_LINES}
GZIP: dict[str, Any] = {"compression": upload_pb2.COMPRESSION_GZIP}
ZSTD: dict[str, Any] = {"compression": upload_pb2.COMPRESSION_ZSTD}

GOOD = {"user_id": "abcdefgh", "item_id": "i", "interaction_type": "view", "timestamp": "2025-01-01"}
ROW = b"u,i,view,2025-01-01,\n"
TABLE = table_of([GOOD, GOOD | {"user_id": "ijklmnop"}])


def _forged(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


def _offsets(write: Callable[..., bytes]) -> bytes:
    return _forged(write(TABLE), struct.pack("<3i", 0, 8, 16), struct.pack("<3i", 0, 0x7F000000, 16))


def _gzip_bomb() -> bytes:
    engine = zlib.compressobj(9, wbits=31)
    start = engine.compress(HEADER.encode())
    rows = [engine.compress(ROW * 50_000) for _ in range(300)]
    return b"".join([start, *rows, engine.flush()])


def _zstd_ipc_bomb() -> bytes:
    # Some KB that decode to 320 MB.
    zeros = pa.array(np.zeros(40_000_000, np.int64))
    table = pa.table(dict.fromkeys(INTERACTIONS, zeros))
    return ipc_stream(table, 40_000_000, compression="zstd")


def _dictionary_bomb(write: Callable[..., bytes]) -> bytes:
    ids = pa.DictionaryArray.from_arrays(pa.array(np.zeros(200_000, np.int32)), pa.array(["x" * 500_000]))
    return write(table_of([GOOD] * 200_000).set_column(0, "user_id", ids), 200_000)


def _wide(write: Callable[..., bytes]) -> bytes:
    names = [*INTERACTIONS, *map(str, range(10_000))]
    return write(pa.table([*TABLE.columns, *([TABLE["user_id"]] * 10_000)], names))


def _tensors(write: Callable[..., bytes]) -> bytes:
    shape = pa.fixed_shape_tensor(pa.int32(), [1])
    tensor = pa.ExtensionArray.from_storage(shape, pa.array([[1], [2]], pa.list_(pa.int32(), 1)))
    return write(TABLE.set_column(4, "rating", tensor))


def _lying_parquet() -> bytes:
    """A footer that says it is 2 GiB long, and one whose pages are overwritten."""
    data = parquet(TABLE)
    return data[:-8] + struct.pack("<i", 0x7FFFFFFF) + b"PAR1"


def _trampled_parquet() -> bytes:
    data = bytearray(parquet(table_of([GOOD | {"user_id": f"u{n}"} for n in range(5000)]), 5000))
    data[50:3000] = bytes(2950)
    return bytes(data)


def _lying_body() -> bytes:
    """A stream whose record batch says that it has a body of 1 TiB."""
    data = ipc_stream(TABLE)
    messages = list(pa.ipc.MessageReader.open_stream(data))
    return _forged(data, struct.pack("<q", messages[1].body.size), struct.pack("<q", 1 << 40))


def _rows_of_nothing() -> bytes:
    """A stream of 2^40 rows of nulls, which take no room."""
    data = ipc_stream(pa.table({name: pa.nulls(1 << 20) for name in INTERACTIONS}), 1 << 20)
    return data.replace(struct.pack("<q", 1 << 20), struct.pack("<q", 1 << 40))


CORPUS: dict[str, tuple[Callable[[], bytes], dict[str, Any], str]] = {
    "gzip bomb": (_gzip_bomb, GZIP, "TOO_LARGE"),
    "zstd bomb": (lambda: zstd(HEADER.encode() + bytes(400 << 20)), ZSTD, "TOO_LARGE|RECORD_TOO_LARGE"),
    "gzip of a 300 MiB field": (
        lambda: gzip.compress(HEADER.encode() + b'u,"' + b"x" * (300 << 20), 1),
        GZIP,
        "RECORD_TOO_LARGE",
    ),
    "truncated gzip": (lambda: gzip.compress(csv_bytes([GOOD] * 999))[:-9], GZIP, "CORRUPT_STREAM"),
    "truncated zstd": (lambda: zstd(csv_bytes([GOOD] * 999))[:-9], ZSTD, "CORRUPT_STREAM"),
    "gzip with more behind it": (lambda: gzip.compress(csv_bytes([GOOD])) + b"more", GZIP, "CORRUPT_STREAM"),
    "a JSON line above 1 MiB": (
        lambda: json_lines([GOOD, GOOD | {"x": "x" * (1 << 20)}]),
        LINES,
        "RECORD_TOO_LARGE",
    ),
    "JSON lines without a line end": (lambda: b'[{"a":1},' * 200_000, LINES, "RECORD_TOO_LARGE"),
    "JSON lines in UTF-16": (lambda: json.dumps(GOOD).encode("utf-16"), LINES, "BAD_ENCODING"),
    "zip said to be JSON lines": (lambda: b"PK\x03\x04" + bytes(100), LINES, "BAD_ENCODING"),
    "an open quote": (lambda: csv_bytes([GOOD] * 99) + b'u,"i\n' + csv_bytes([GOOD]), {}, "CORRUPT_STREAM"),
    "an open quote in gzip": (
        lambda: gzip.compress(csv_bytes([GOOD] * 99) + b'u,"i\n'),
        GZIP,
        "CORRUPT_STREAM",
    ),
    "zip said to be gzip": (lambda: b"PK\x03\x04" + bytes(100), GZIP, "BAD_ENCODING"),
    "plain CSV said to be zstd": (lambda: csv_bytes([GOOD]), ZSTD, "BAD_ENCODING"),
    "gzip of UTF-16": (lambda: gzip.compress(HEADER.encode("utf-16")), GZIP, "BAD_ENCODING"),
    "gzip of gzip": (lambda: gzip.compress(gzip.compress(csv_bytes([GOOD]))), GZIP, "BAD_ENCODING"),
    "gzip of nothing": (lambda: gzip.compress(b""), GZIP, "NO_HEADER"),
    "gzip said to be nothing": (lambda: gzip.compress(csv_bytes([GOOD])), {}, "BAD_ENCODING"),
    "JSON said to be nothing": (lambda: b'[{"user_id":"u"}]\n', {}, "BAD_ENCODING"),
    "Parquet said to be nothing": (lambda: parquet(TABLE), {}, "BAD_ENCODING"),
    "10,000 CSV columns": (lambda: ",".join(map(str, range(10_000))).encode() + b"\n", {}, "TOO_LARGE"),
    "forged offsets, stream": (lambda: _offsets(ipc_stream), ARROW, "CORRUPT_STREAM"),
    "forged offsets, file": (lambda: _offsets(ipc_file), ARROW, "CORRUPT_STREAM"),
    "IPC without end marker": (lambda: ipc_stream(TABLE)[:-8], ARROW, "CORRUPT_STREAM"),
    "truncated IPC stream": (lambda: ipc_stream(TABLE)[:-40], ARROW, "CORRUPT_STREAM"),
    "truncated IPC file": (lambda: ipc_file(TABLE)[:-40], ARROW, "CORRUPT_STREAM"),
    "IPC length of 1 TiB": (_lying_body, ARROW, "CORRUPT_STREAM"),
    "zstd IPC bomb": (_zstd_ipc_bomb, ARROW, "TOO_LARGE"),
    "IPC dictionary bomb": (lambda: _dictionary_bomb(ipc_stream), ARROW, "TOO_LARGE"),
    "IPC 300 MiB field": (
        lambda: ipc_stream(table_of([GOOD, GOOD | {"user_id": "x" * (300 << 20)}])),
        ARROW,
        "RECORD_TOO_LARGE",
    ),
    "IPC 10,000 columns": (lambda: _wide(ipc_stream), ARROW, "TOO_LARGE"),
    "IPC extension type": (lambda: _tensors(ipc_stream), ARROW, "UNSUPPORTED_TYPE"),
    "IPC rows of nothing": (_rows_of_nothing, ARROW, "TOO_LARGE|CORRUPT_STREAM"),
    "CSV said to be IPC": (lambda: csv_bytes([GOOD]), ARROW, "BAD_ENCODING"),
    "nothing said to be IPC": (lambda: b"", ARROW, "BAD_ENCODING"),
    "truncated Parquet": (lambda: parquet(TABLE)[:-1], PARQUET, "CORRUPT_STREAM"),
    "Parquet footer of 2 GiB": (_lying_parquet, PARQUET, "CORRUPT_STREAM"),
    "trampled Parquet": (_trampled_parquet, PARQUET, "CORRUPT_STREAM"),
    "Parquet dictionary bomb": (lambda: _dictionary_bomb(parquet), PARQUET, "TOO_LARGE"),
    "Parquet 10,000 columns": (lambda: _wide(parquet), PARQUET, "TOO_LARGE"),
    "Parquet extension type": (lambda: _tensors(parquet), PARQUET, "UNSUPPORTED_TYPE"),
    "Parquet without a column": (lambda: parquet(TABLE.drop_columns(["user_id"])), PARQUET, "MISSING_COLUMN"),
    "Parquet with an encrypted column": (
        lambda: encrypted_parquet(TABLE, "user_id"),
        PARQUET,
        "CORRUPT_STREAM",
    ),
    "Parquet with an encrypted footer": (
        lambda: encrypted_parquet(TABLE, "user_id", plaintext_footer=False),
        PARQUET,
        "BAD_ENCODING",
    ),
    "a PDF": (lambda: b"%PDF-1.7", PARQUET, "BAD_ENCODING"),
}


@pytest.fixture(scope="module")
def roomy(server_with: Callable[..., Server]) -> Server:
    """A server with blocks of the usual size: bombs take thousands of small ones to go off."""
    return server_with()


@pytest.fixture(scope="module")
def neighbour(roomy: Server) -> Iterator[Callable[[], int]]:
    """Uploads in a row by another tenant, all through this module; call it for how many came right."""
    stop, done, failed = threading.Event(), [0], list[Any]()
    data = HEADER + lines(3000)

    def upload() -> None:
        with grpc.insecure_channel(roomy.address) as channel:
            stub = PipelineServiceStub(channel)
            while not stop.is_set():
                talk = Dialogue(stub, [header(f"n-{uuid.uuid4().hex[:12]}"), chunk(data), finish()])
                if talk.error is not None or talk.result.rows_accepted != 3000:
                    failed.append(talk.error or talk.result)
                done[0] += 1

    thread = threading.Thread(target=upload)
    thread.start()

    def so_far() -> int:
        assert not failed
        return done[0]

    yield so_far
    stop.set()
    thread.join()
    assert not failed


def _deaths(server: Server) -> list[dict[str, object]]:
    """What the server logged of workers that died, as no hostile stream may make them."""
    return [line for line in server.log if line.get("event") == "worker died"]


def _left(server: Server, tenant: str, upload_id: str) -> list[Path]:
    """What an upload has in the store besides its records, and the entry by which it is listed."""
    found = files_below(server.data_dir)
    mine = [path for path in found if upload_id in str(path) or f"/{tenant}/" in str(path)]
    return [path for path in mine if not path.name.isdigit() and "/upload-list/" not in str(path)]


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_stream_is_a_typed_error_that_leaves_nothing_and_hurts_nobody(
    roomy: Server, tenant: str, neighbour: Callable[[], int], name: str
) -> None:
    with grpc.insecure_channel(roomy.address) as channel, Client(roomy.address) as client:
        _go_off(roomy, PipelineServiceStub(channel), client, tenant, neighbour, name)


def _go_off(
    server: Server,
    stub: PipelineServiceStub,
    client: Client,
    tenant: str,
    neighbour: Callable[[], int],
    name: str,
) -> None:
    make, fields, reasons = CORPUS[name]
    data, upload_id, before = make(), str(uuid.uuid4()), neighbour()
    requests = [header(tenant, upload_id=upload_id, **fields)]
    requests += [chunk(data[at : at + (1 << 20)], offset=at) for at in range(0, len(data), 1 << 20)]
    requests.append(finish(total_size=len(data)))
    code, reason, metadata = Dialogue(stub, requests, timeout=170).failure
    assert (code, reason in reasons.split("|")) == (INVALID, True), (code, reason, metadata)
    assert list(client.list_tables(tenant)) == []
    if fields:
        assert _left(server, tenant, upload_id) == []
        # The answer may have been lost: asking again gets the same one, sending again does not help.
        assert Dialogue(stub, requests[:1]).failure == (code, reason, metadata)
        upload = client.get_upload(tenant, upload_id)
        assert upload.state == upload_pb2.UPLOAD_STATE_ABORTED
    assert client.health().status == "healthy"
    assert _deaths(server) == []
    while neighbour() == before:
        time.sleep(0.05)


@pytest.mark.parametrize("count", [200_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_parquet_whose_rows_are_all_bad_ends_no_worker(roomy: Server, tenant: str, count: int) -> None:
    # Some KB that decode to many MB of rows, each of which is several rejects.
    rows = {
        name: pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["?" * 8]))
        for name in INTERACTIONS
    }
    data = parquet(pa.table(rows), count)
    assert len(data) < 100_000
    with grpc.insecure_channel(roomy.address) as channel:
        stub = PipelineServiceStub(channel)
        result = Dialogue(stub, [header(tenant, **PARQUET), chunk(data), finish()], timeout=170).result
    assert (result.rows_received, result.rows_accepted) == (count, 0)
    assert _deaths(roomy) == []


def test_parquet_in_thousands_of_row_groups_is_read_once(stub: PipelineServiceStub, tenant: str) -> None:
    data = parquet(table_of([GOOD | {"item_id": f"i{n}"} for n in range(12_000)]), 3)
    result = Dialogue(stub, [header(tenant, **PARQUET), chunk(data), finish()]).result
    assert result.rows_accepted == 12_000


BOM = b"\xef\xbb\xbf"

TEXTS: dict[str, tuple[bytes, list[tuple[int, str, str]]]] = {
    "a BOM": (BOM + HEADER.encode() + ROW, []),
    "NUL in a value": (HEADER.encode() + b"u\0,i,view,2025-01-01,\n" + ROW, [(0, "user_id", "BAD_TEXT")]),
    "invalid UTF-8": (HEADER.encode() + ROW + b"\xff\xfe,i,view,2025-01-01,\n", [(1, "user_id", "BAD_TEXT")]),
    "a quote in mid-field": (
        HEADER.encode() + b'u,5" pipe,view,2025-01-01,\nu,6" pipe,view,2025-01-01,\n',
        [],
    ),
    "text behind a closing quote": (
        HEADER.encode() + b'u,"a "b" c",view,2025-01-01,\n"u"x,i\n' + ROW,
        [(0, "", "BAD_QUOTE"), (1, "", "BAD_QUOTE")],
    ),
    "quoted line ends": (
        HEADER.encode() + b'u,"a\r\nb",view,2025-01-01,\r\n' * 2 + ROW,
        [(0, "item_id", "BAD_TEXT"), (1, "item_id", "BAD_TEXT")],
    ),
    "NA and nan are text": (HEADER.encode() + b"NA,nan,view,2025-01-01,\n", []),
    "CR alone": (
        HEADER.replace("\n", "\r").encode() + ROW.replace(b"\n", b"\r") * 1 + b"v,i,view,2025-01-01,\r",
        [],
    ),
    "short and long records": (
        HEADER.encode() + b"u,i\n" + ROW + b"u,i,view,2025-01-01,,\n",
        [(0, "", "WRONG_FIELD_COUNT"), (2, "", "WRONG_FIELD_COUNT")],
    ),
}


@pytest.mark.parametrize("compression", [{}, GZIP, ZSTD], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("name", TEXTS)
def test_odd_text_is_read_as_the_contract_says(
    stub: PipelineServiceStub, client: Client, tenant: str, name: str, compression: dict[str, Any]
) -> None:
    text, faults = TEXTS[name]
    packs: dict[int, Callable[[bytes], bytes]] = {0: bytes, 2: gzip.compress, 3: zstd}
    pack = packs[compression.get("compression", 0)]
    data = pack(text)
    # One byte a chunk, so that every edge is met.
    requests = [
        header(tenant, **compression),
        *(chunk(data[at : at + 1]) for at in range(len(data))),
        finish(),
    ]
    result = Dialogue(stub, requests).result
    found = [
        (each.row_number, each.column, each.code) for each in client.list_rejects(tenant, result.upload_id)
    ]
    assert found == faults
    assert result.rows_accepted == result.rows_received - len(faults)


def test_quoted_line_ends_survive_block_edges(stub: PipelineServiceStub, client: Client, tenant: str) -> None:
    # Titles may hold line ends; the blocks of this server have 64 KiB.
    rows = [f'i{n},"a\r\nb""{"x" * (n % 90)}\n{n}",,,,' for n in range(6000)]
    text = "item_id,title,category,price,brand,description\r\n" + "\r\n".join(rows)
    for suffix, fields, data in (("p", {}, text.encode()), ("z", GZIP, gzip.compress(text.encode()))):
        opening = header(f"{tenant}{suffix}", data_type="items", **fields)
        result = Dialogue(stub, [opening, chunk(data), finish()]).result
        assert (result.rows_accepted, result.rows_rejected) == (6000, 0)
        table = client.read_table(f"{tenant}{suffix}", "items")
        titles = dict(zip(table["item_id"].to_pylist(), table["title"].to_pylist(), strict=True))
        assert titles == {f"i{n}": f'a\r\nb"{"x" * (n % 90)}\n{n}' for n in range(6000)}


def test_a_field_larger_than_a_block_is_read_whole(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    text = f"item_id,title,category,price,brand,description\ni,t,,,,{'d' * 500_000}\nj,t,,,,short\n"
    result = Dialogue(stub, [header(tenant, data_type="items"), chunk(text), finish()]).result
    (reject,) = client.list_rejects(tenant, result.upload_id)
    assert (reject.row_number, reject.column, reject.code) == (0, "description", "TOO_LONG")
    assert result.rows_accepted == 1


@pytest.mark.parametrize("place", [0, 1], ids=["at once", "after a flush"])
def test_an_upload_given_up_deletes_what_it_had_stored(
    stub: PipelineServiceStub, client: Client, server: Server, tenant: str, place: int
) -> None:
    text = (HEADER + lines(20_000)).encode()
    data, upload_id = gzip.compress(text)[:-4], str(uuid.uuid4())
    requests = [header(tenant, upload_id=upload_id, **GZIP), chunk(data), finish()]
    requests[2:2] = [flush()] * place
    talk = Dialogue(stub, requests)
    # Whole blocks came out of it before its end turned out to be missing.
    assert talk.all("ack")[-1].rows_accepted > 0
    assert talk.failure[1] == "CORRUPT_STREAM"
    assert _left(server, tenant, upload_id) == []
