"""Compressed, Arrow and Parquet uploads against real servers: equal to CSV, resumable, gone when done."""

import gzip
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import pyarrow as pa
import pytest
from harness.cluster import Cluster
from harness.dialogue import HEADER, Dialogue, Talk, chunk, cut, finish, flush, header, lines
from harness.phoenix import Phoenix
from harness.server import Server
from harness.streams import csv_bytes, ipc_file, ipc_stream, parquet, table_of, zstd
from harness.watch import eventually, files_below

from headrace import Client
from headrace.v1 import upload_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

GZIP = {"compression": upload_pb2.COMPRESSION_GZIP}
ZSTD = {"compression": upload_pb2.COMPRESSION_ZSTD}
ARROW = {"format": upload_pb2.FORMAT_ARROW_IPC}
PARQUET = {"format": upload_pb2.FORMAT_PARQUET}


FAULTS: list[dict[str, Any]] = [
    {"user_id": None},
    {"interaction_type": "nod"},
    {"timestamp": "never"},
    {"rating": 9.0},
]


def rows(count: int) -> list[dict[str, Any]]:
    """Good rows, rows of every fault, and duplicates far from their first."""
    made = []
    for n in range(count):
        row: dict[str, Any] = {
            "user_id": f"u{n % 97}",
            "item_id": f"i{n % (count - 50)}",
            "interaction_type": "view",
            "timestamp": f"2026-01-01T00:00:{n % (count - 50) % 60:02d}Z",
            "rating": None,
        }
        row["user_id"] = f"u{n % (count - 50) % 97}"
        if n % 50 == 7:
            row |= FAULTS[n % 4]
        made.append(row)
    return made


ROWS = rows(6000)
TEXT, TABLE = csv_bytes(ROWS), table_of(ROWS)
STREAMS: dict[str, tuple[Callable[[], bytes], dict[str, Any]]] = {
    "gzip": (lambda: gzip.compress(TEXT), GZIP),
    "zstd": (lambda: zstd(TEXT), ZSTD),
    "arrow stream": (lambda: ipc_stream(TABLE, 700), ARROW),
    "arrow file": (lambda: ipc_file(TABLE, 700, compression="lz4"), ARROW),
    "one batch": (lambda: ipc_stream(TABLE, 6000), ARROW),
    "parquet": (lambda: parquet(TABLE, 2500), PARQUET),
}


def stored(client: Client, tenant: str) -> list[tuple[Any, ...]]:
    table = client.read_table(tenant, "interactions")
    names = ("user_id", "item_id", "interaction_type", "timestamp", "rating", "row_number")
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True), key=lambda row: row[-1])


def counts(result: upload_pb2.UploadResult) -> tuple[int, ...]:
    return (result.rows_received, result.rows_accepted, result.rows_rejected, result.rows_duplicate)


def rejects(client: Client, tenant: str, upload_id: str) -> list[tuple[Any, ...]]:
    found = client.list_rejects(tenant, upload_id)
    return [(each.row_number, each.column, each.code, each.duplicate_of) for each in found]


def checks(result: upload_pb2.UploadResult) -> dict[tuple[str, str], int]:
    return {(check.column, check.code): check.failing_rows for check in result.report.checks}


def check_nothing_stays_staged(server: Server, upload_id: str) -> None:
    """What was staged is deleted after the result is told, soon."""
    eventually(lambda: not any(f"{upload_id}/staged/" in str(path) for path in files_below(server.data_dir)))


def pieces(data: bytes, size: int) -> list[upload_pb2.UploadRequest]:
    return [chunk(data[at : at + size], offset=at) for at in range(0, len(data), size)]


@pytest.fixture(scope="module")
def plain(server: Server) -> tuple[upload_pb2.UploadResult, list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    tenant = f"t-{uuid.uuid4().hex[:12]}"
    with grpc.insecure_channel(server.address) as channel, Client(server.address) as client:
        result = Dialogue(PipelineServiceStub(channel), [header(tenant), chunk(TEXT), finish()]).result
        return result, stored(client, tenant), rejects(client, tenant, result.upload_id)


@pytest.mark.parametrize("name", STREAMS)
def test_the_table_and_the_report_are_those_of_plain_csv(
    stub: PipelineServiceStub, client: Client, server: Server, tenant: str, plain: Any, name: str
) -> None:
    make, fields = STREAMS[name]
    data = make()
    talk = Dialogue(stub, [header(tenant, **fields), *pieces(data, 10_000), finish(total_size=len(data))])
    expected, table, rejected = plain
    result = talk.result
    assert counts(result) == counts(expected)
    assert checks(result) == checks(expected)
    assert stored(client, tenant) == table
    assert rejects(client, tenant, result.upload_id) == rejected
    assert list(result.report.columns) == list(expected.report.columns)
    check_nothing_stays_staged(server, result.upload_id)
    upload = client.get_upload(tenant, result.upload_id)
    assert upload.persisted_offset == len(data)
    assert (upload.header.format or 1, upload.header.compression) == (
        fields.get("format", upload_pb2.FORMAT_CSV),
        fields.get("compression", upload_pb2.COMPRESSION_NONE),
    )


@pytest.mark.parametrize("name", ["gzip", "parquet"])
def test_staged_bytes_are_acknowledged_resumed_replayed_and_invisible_before_finish(
    stub: PipelineServiceStub, client: Client, tenant: str, plain: Any, name: str
) -> None:
    make, fields = STREAMS[name]
    data, upload_id = make(), str(uuid.uuid4())
    opening = header(tenant, upload_id=upload_id, **fields)
    third = len(data) // 3
    first = Dialogue(stub, [opening, chunk(data[:third]), flush(), chunk(data[third : third + 10])])
    assert [ack.persisted_offset for ack in first.all("ack")][-1] == third + 10
    assert list(client.list_tables(tenant)) == []
    again = Dialogue(
        stub,
        [
            opening,
            chunk(data[: third + 5], offset=0),
            chunk(data[2 * third + 100 :], offset=2 * third + 100),
            chunk(data[third : 2 * third], offset=third),
            chunk(data[2 * third :], offset=2 * third),
            finish(total_size=len(data)),
        ],
    )
    assert again.started.persisted_offset == third + 10
    (gap,) = again.all("error")
    assert gap.code == grpc.StatusCode.OUT_OF_RANGE.value[0]
    assert counts(again.result) == counts(plain[0])
    assert stored(client, tenant) == plain[1]
    assert Dialogue(stub, [opening]).result == again.result


def test_a_wrong_total_size_decodes_nothing_and_the_upload_stays_open(
    stub: PipelineServiceStub, client: Client, tenant: str, plain: Any
) -> None:
    data, upload_id = STREAMS["gzip"][0](), str(uuid.uuid4())
    opening = header(tenant, upload_id=upload_id, **GZIP)
    talk = Dialogue(stub, [opening, chunk(data[:100]), finish(total_size=len(data))])
    assert talk.failure[:2] == (grpc.StatusCode.DATA_LOSS, "SIZE_MISMATCH")
    offset = Dialogue(stub, [opening]).started.persisted_offset
    again = Dialogue(stub, [opening, chunk(data[offset:], offset=offset), finish(total_size=len(data))])
    assert counts(again.result) == counts(plain[0])


def test_all_or_nothing_and_limits_hold_for_staged_uploads_too(
    stub: PipelineServiceStub, client: Client, server: Server, tenant: str
) -> None:
    fields = {"policy": upload_pb2.POLICY_ALL_OR_NOTHING, **PARQUET}
    result = Dialogue(stub, [header(tenant, **fields), chunk(parquet(TABLE)), finish()]).result
    assert result.outcome == upload_pb2.OUTCOME_REFUSED
    assert [table.name for table in client.list_tables(tenant)] == ["rejects"]
    check_nothing_stays_staged(server, result.upload_id)


@pytest.mark.parametrize("name", ["arrow stream", "parquet"])
def test_no_rows_are_an_empty_upload(
    stub: PipelineServiceStub, client: Client, tenant: str, name: str
) -> None:
    write = {"arrow stream": ipc_stream, "parquet": parquet}[name]
    talk = Dialogue(stub, [header(tenant, **STREAMS[name][1]), chunk(write(TABLE.slice(0, 0))), finish()])
    assert talk.result.outcome == upload_pb2.OUTCOME_EMPTY
    assert list(client.list_tables(tenant)) == []


def test_unknown_columns_of_parquet_are_named(stub: PipelineServiceStub, tenant: str) -> None:
    data = parquet(table_of(ROWS[:5]).append_column("colour", pa.array(["red"] * 5)))
    talk = Dialogue(stub, [header(tenant, **PARQUET), chunk(data), finish()])
    assert ("UNKNOWN_COLUMN", "colour") in [(w.code, w.column) for w in talk.result.report.warnings]
    strict = header(tenant, unknown_columns=upload_pb2.UNKNOWN_COLUMNS_REJECT, **PARQUET)
    failure = Dialogue(stub, [strict, chunk(data), finish()]).failure
    assert failure == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_COLUMN", {"columns": "colour"})


def test_many_streams_of_one_tenant_leave_another_a_decoder(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    # The server has two workers: by arrival the small one would be decoded after all of these.
    big, many = f"{tenant}-big", 12
    data = gzip.compress((HEADER + lines(60_000)).encode(), 1)
    with ThreadPoolExecutor(many) as threads:
        begun = threading.Event()

        def upload(_: int) -> None:
            requests = [header(big, **GZIP), chunk(data), finish()]
            assert Dialogue(stub, requests, lambda _: begun.set(), timeout=300).result.rows_accepted == 60_000

        uploads = [threads.submit(upload, number) for number in range(many)]
        assert begun.wait(60)
        eventually(lambda: any(table.name == "interactions" for table in client.list_tables(big)), 120)
        small = Dialogue(stub, [header(f"{tenant}-small", **GZIP), chunk(gzip.compress(TEXT)), finish()])
        assert small.result.rows_received == 6000
        assert sum(upload.done() for upload in uploads) < many
        for each in uploads:
            each.result()


def blocks_of(server: Server, tenant: str, upload_id: str) -> int:
    """Block records of a session."""
    folder = server.data_dir / "raw-data/_headrace/uploads" / tenant / upload_id
    records = [path for path in folder.glob("*") if path.name.isdigit()]
    return sum(b'"kind":"block"' in path.read_bytes() for path in records)


@pytest.mark.parametrize(
    "name",
    [
        "arrow stream",
        pytest.param("gzip", marks=pytest.mark.slow),
        pytest.param("parquet", marks=pytest.mark.slow),
    ],
)
def test_killed_while_staging_and_while_decoding_it_ends_with_the_same_table(
    phoenix: Phoenix, tenant: str, name: str
) -> None:
    many = rows(60_000)
    table = table_of(many)
    data = {
        "gzip": lambda: gzip.compress(csv_bytes(many)),
        "arrow stream": lambda: ipc_stream(table, 5000),
        "parquet": lambda: parquet(table, 9000),
    }[name]()
    fields, upload_id, other = STREAMS[name][1], str(uuid.uuid4()), f"{tenant}-other"
    opening = header(tenant, upload_id=upload_id, **fields)
    server = phoenix.server
    half = len(data) // 2

    def kill_after_half() -> Any:
        yield opening
        yield chunk(data[:half])
        yield flush()
        mine = server.data_dir / "raw-data/_headrace/uploads" / tenant / upload_id
        while not any(path.parent.name == "staged" for path in files_below(mine)):
            time.sleep(0.01)
        time.sleep(0.2)
        phoenix.kill()
        yield flush()

    with grpc.insecure_channel(server.address) as channel:
        first = Dialogue(PipelineServiceStub(channel), kill_after_half())
    assert first.error is not None

    server = phoenix.rest()
    with grpc.insecure_channel(server.address) as channel:
        started = Dialogue(PipelineServiceStub(channel), [opening]).started
        assert started.persisted_offset == half

        def kill_while_decoding(response: upload_pb2.UploadResponse) -> None:
            if blocks_of(server, tenant, upload_id) >= 3 and server.process.poll() is None:
                phoenix.kill()

        second = Dialogue(
            PipelineServiceStub(channel),
            [opening, chunk(data[half:], offset=half), finish(total_size=len(data))],
            on_response=kill_while_decoding,
        )
    assert second.error is not None
    server_before = server
    done = blocks_of(server_before, tenant, upload_id)
    assert done >= 3

    server = phoenix.rest()
    with grpc.insecure_channel(server.address) as channel, Client(server.address) as client:
        stub = PipelineServiceStub(channel)
        assert list(client.list_tables(tenant)) == []
        late = Dialogue(stub, [opening, chunk(b"more", offset=len(data)), finish()])
        assert late.failure[1] == "INVALID_FIELD"
        third = Dialogue(stub, [opening, finish(total_size=len(data))])
        assert third.started.persisted_offset == len(data)
        text = csv_bytes(many)
        whole = Dialogue(
            stub, [header(other), *(chunk(piece) for piece in cut(text, len(text) // 2)), finish()]
        )
        assert counts(third.result) == counts(whole.result)
        assert stored(client, tenant) == stored(client, other)
        check_nothing_stays_staged(server, upload_id)


def decoders(server: Server) -> list[psutil.Process]:
    """Living decoder processes of a server that we started."""
    found = []
    for process in psutil.Process(server.process.pid).children(recursive=True):
        # Processes come and go while they are being read.
        with suppress(psutil.Error):
            if "Decoder" in " ".join(process.cmdline()):
                found.append(process)
    return found


SECRETS = {
    "S3_SECRET_KEY": "hunter1",
    "KAFKA_SASL_PASSWORD": "hunter2",
    "DATABASE_URL": "postgres://u:hunter3@db/x",
}


@pytest.fixture(scope="module")
def mortal(server_with: Callable[..., Server]) -> Server:
    """A server with secrets, whose decoders are its children, so that they can be killed."""
    return server_with(RAY_ADDRESS="", HEADRACE_BLOCK_BYTES="16384", **SECRETS)


def test_a_decoder_that_dies_is_replaced_and_goes_on(mortal: Server, tenant: str) -> None:
    killed: list[int] = []

    def kill(response: upload_pb2.UploadResponse) -> None:
        if response.WhichOneof("response") == "ack" and response.ack.rows_accepted and len(killed) < 2:
            for process in decoders(mortal):
                if process.pid not in killed:
                    killed.append(process.pid)
                    process.kill()

    other = f"{tenant}-other"
    with grpc.insecure_channel(mortal.address) as channel, Client(mortal.address) as client:
        stub = PipelineServiceStub(channel)
        data = gzip.compress(TEXT)
        talk = Dialogue(stub, [header(tenant, **GZIP), chunk(data), finish()], on_response=kill)
        plain = Dialogue(stub, [header(other), chunk(TEXT), finish()])
        assert len(killed) == 2
        assert counts(talk.result) == counts(plain.result)
        assert stored(client, tenant) == stored(client, other)


@pytest.mark.slow
def test_a_decoder_that_stands_still_is_replaced_within_a_minute(mortal: Server, tenant: str) -> None:
    stopped: list[psutil.Process] = []

    def stop(response: upload_pb2.UploadResponse) -> None:
        if response.WhichOneof("response") == "ack" and response.ack.rows_accepted and not stopped:
            for process in decoders(mortal):
                stopped.append(process)
                process.suspend()

    with grpc.insecure_channel(mortal.address) as channel:
        packed = [header(tenant, **GZIP), chunk(gzip.compress(TEXT)), finish()]
        talk = Dialogue(PipelineServiceStub(channel), packed, on_response=stop, timeout=150)
        assert stopped
        assert talk.result.rows_received == 6000
    eventually(lambda: not any(process.is_running() for process in stopped), seconds=30)


def test_no_process_below_the_server_has_a_secret_in_its_environment(mortal: Server, tenant: str) -> None:
    with grpc.insecure_channel(mortal.address) as channel:
        packed = [header(tenant, **GZIP), chunk(gzip.compress(TEXT)), finish()]
        assert Dialogue(PipelineServiceStub(channel), packed).result.rows_received == 6000
    family = psutil.Process(mortal.process.pid).children(recursive=True)
    names = {process.name() for process in family}
    assert {"gcs_server", "raylet", "ray::Worker", "ray::Decoder"} <= names
    shown = {process: Path(f"/proc/{process.pid}/environ").read_bytes() for process in family}
    assert [process.name() for process, environment in shown.items() if b"hunter" in environment] == []


def test_a_joined_ray_s_token_is_not_with_decoders(
    server: Server, stub: PipelineServiceStub, cluster: Cluster, tenant: str
) -> None:
    packed = [header(tenant, **GZIP), chunk(gzip.compress(TEXT)), finish()]
    assert Dialogue(stub, packed).result.rows_received == 6000
    token = cluster.settings["RAY_AUTH_TOKEN"].encode()
    environments = [
        Path(f"/proc/{process.pid}/environ").read_bytes() for process in cluster.processes("ray::Decoder")
    ]
    assert environments
    assert not any(token in environment for environment in environments)


def test_who_ends_decoders_waits_before_more_of_it_is_decoded_and_others_do_not(
    mortal: Server, tenant: str
) -> None:
    data = gzip.compress(TEXT)
    poison = [header(tenant, **GZIP), chunk(data), finish()]
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.05):
            for process in decoders(mortal):
                process.kill()

    with grpc.insecure_channel(mortal.address) as channel, ThreadPoolExecutor(1) as threads:
        stub = PipelineServiceStub(channel)
        killing = threads.submit(kill)
        try:
            assert Dialogue(stub, poison).failure[1] == "POISON_BLOCK"
        finally:
            over.set()
        killing.result()
        deaths = [line for line in mortal.log if line.get("event") == "decoder died"]
        assert sum(line.get("tenant") == tenant for line in deaths) == 3
        # Nothing of it is even staged.
        refused = Dialogue(stub, poison)
        code, reason, metadata = refused.failure
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SUSPENDED")
        assert not refused.all("ack")
        other = Dialogue(stub, [header(f"{tenant}-other", **GZIP), chunk(data), finish()])
        assert other.result.rows_received == 6000
        time.sleep(float(metadata["retry_seconds"]))
        assert Dialogue(stub, poison).result.rows_received == 6000


def test_whoever_comes_need_not_wait_until_long_streams_of_others_have_been_decoded(
    server_with: Callable[..., Server], tenant: str
) -> None:
    # One worker: two streams are decoded at a time.
    server = server_with(HEADRACE_WORKERS="1", HEADRACE_BLOCK_BYTES="16384")
    data = gzip.compress((HEADER + lines(60_000)).encode(), 1)
    with grpc.insecure_channel(server.address) as channel:
        stub = PipelineServiceStub(channel)
        long = []
        for name in "ab":
            long.append(Talk(stub, header(f"{tenant}-{name}", **GZIP), chunk(data), finish()))
            eventually(lambda: any(ack.rows_accepted for ack in long[-1].all("ack")))
        small = gzip.compress((HEADER + lines(10)).encode())
        new = Dialogue(stub, [header(f"{tenant}-c", **GZIP), chunk(small), finish()])
        assert new.result.rows_accepted == 10
        assert not any(talk.all("result") or talk.error for talk in long)
        # Who made room goes on where it was.
        assert [talk.wait_for("result", 120).rows_accepted for talk in long] == [60_000] * 2
        for talk in long:
            talk.end()
