"""How uploads end other than well: aborted, expired, idle, refused, without room, poisonous."""

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import google_crc32c
import grpc
import psutil
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from harness.dialogue import HEADER, Dialogue, Talk, chunk, failure_of, finish, flush, header, lines
from harness.disk import fill, small_file_system
from harness.phoenix import Phoenix
from harness.server import Server, start_server
from harness.watch import eventually, files_below

from headrace import Client
from headrace.v1 import ingest_pb2, row_pb2, upload_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

TTL_SECONDS = 4.0
IDLE_SECONDS = 2.0


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that loses patience within seconds and takes few calls at once."""
    started = start_server(
        tmp_path_factory.mktemp("hasty") / "data",
        HEADRACE_BLOCK_BYTES="65536",
        HEADRACE_UPLOAD_TTL_SECONDS=str(TTL_SECONDS),
        HEADRACE_IDLE_SECONDS=str(IDLE_SECONDS),
        HEADRACE_MAX_UPLOADS="5",
        HEADRACE_MAX_UPLOADS_PER_TENANT="3",
    )
    yield started
    assert started.stop() == 0


@pytest.fixture
def hasty_stub(hasty: Server) -> Iterator[PipelineServiceStub]:
    with grpc.insecure_channel(hasty.address) as channel:
        yield PipelineServiceStub(channel)


def _abort(stub: PipelineServiceStub, tenant: str, upload_id: str) -> None:
    stub.AbortUpload(upload_pb2.AbortUploadRequest(tenant_id=tenant, upload_id=upload_id), timeout=30)


def _get(stub: PipelineServiceStub, tenant: str, upload_id: str) -> upload_pb2.GetUploadResponse:
    request = upload_pb2.GetUploadRequest(tenant_id=tenant, upload_id=upload_id)
    return stub.GetUpload(request, timeout=30)


def _persisted(stub: PipelineServiceStub, tenant: str, upload_id: str) -> int:
    """How far an upload came; 0 where it did not come to a session."""
    try:
        return _get(stub, tenant, upload_id).persisted_offset
    except grpc.RpcError as error:
        if failure_of(error)[1] != "UPLOAD_NOT_FOUND":
            raise
        return 0


def _files(server: Server, upload_id: str) -> list[str]:
    """What the store holds of an upload, but its records and entries of indexes."""
    paths = [path for path in files_below(server.data_dir) if upload_id in str(path)]
    return sorted(path.name for path in paths if not path.name.isdigit() and path.name[-36:] != upload_id)


def test_the_checksum_of_what_is_persisted_is_told_and_survives_a_resume(
    stub: PipelineServiceStub, tenant: str
) -> None:
    upload_id, data = str(uuid.uuid4()), (HEADER + lines(9000)).encode()
    half = len(data) // 2
    opening = header(tenant, upload_id=upload_id)
    first = Dialogue(stub, [opening, *(chunk(data[i : i + 9999]) for i in range(0, half, 9999))])
    assert (first.started.persisted_offset, first.started.persisted_crc32c) == (0, 0)
    assert first.started.HasField("persisted_crc32c")
    for ack in first.all("ack"):
        assert ack.persisted_crc32c == google_crc32c.value(data[: ack.persisted_offset])
    again = Dialogue(stub, [opening])
    offset = again.started.persisted_offset
    assert offset > 0
    assert again.started.persisted_crc32c == google_crc32c.value(data[:offset])
    whole = google_crc32c.value(data)
    last = Dialogue(stub, [opening, chunk(data[offset:], offset=offset), finish(crc32c=whole)])
    assert last.result.rows_accepted == 9000
    done = Dialogue(stub, [opening]).started
    assert (done.persisted_offset, done.persisted_crc32c) == (len(data), whole)


@pytest.mark.parametrize(
    "data", [HEADER + lines(5), HEADER, HEADER.strip(), "\ufeff\n\r\n" + HEADER + lines(2)]
)
def test_the_checksum_of_the_whole_covers_what_no_block_holds(
    stub: PipelineServiceStub, tenant: str, data: str
) -> None:
    whole = google_crc32c.value(data.encode())
    assert Dialogue(stub, [header(tenant), chunk(data), finish(crc32c=whole)]).result


def test_a_wrong_checksum_of_the_whole_shows_nothing_and_leaves_the_upload_open(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    upload_id, data = str(uuid.uuid4()), (HEADER + lines(3000)).encode()
    opening, right = header(tenant, upload_id=upload_id), google_crc32c.value(data)
    talk = Dialogue(stub, [opening, chunk(data), finish(crc32c=right ^ 1)])
    assert talk.failure[:2] == (grpc.StatusCode.DATA_LOSS, "CHECKSUM_MISMATCH")
    assert list(client.list_tables(tenant)) == []
    upload = _get(stub, tenant, upload_id)
    assert upload.state == upload_pb2.UPLOAD_STATE_OPEN
    assert talk.failure[2] == {"expected_offset": str(upload.persisted_offset)}
    rest = data[upload.persisted_offset :]
    again = Dialogue(stub, [opening, chunk(rest, offset=upload.persisted_offset), finish(crc32c=right)])
    assert again.result.rows_accepted == 3000


def test_a_wrong_checksum_of_a_chunk_leaves_the_offset_where_it_was(
    stub: PipelineServiceStub, tenant: str
) -> None:
    data = (HEADER + lines(100)).encode()
    bad = chunk(data[50:], crc32c=google_crc32c.value(data[50:]) ^ 1)
    requests = [header(tenant), chunk(data[:50]), bad, bad, flush(), chunk(data[50:], offset=50), finish()]
    talk = Dialogue(stub, requests)
    assert {error.code for error in talk.all("error")} == {grpc.StatusCode.DATA_LOSS.value[0]}
    assert (talk.result.rows_received, talk.result.rows_accepted) == (100, 100)


def test_rows_have_no_checksum(stub: PipelineServiceStub, tenant: str) -> None:
    opening = header(tenant, format=upload_pb2.FORMAT_ROWS)
    talk = Dialogue(stub, [opening, finish(crc32c=0)])
    assert talk.failure[1:] == ("INVALID_FIELD", {"field": "finish.crc32c"})
    assert not talk.started.HasField("persisted_crc32c")


def test_an_aborted_upload_is_gone_and_its_open_stream_ends(
    stub: PipelineServiceStub, server: Server, client: Client, tenant: str
) -> None:
    upload_id, data = str(uuid.uuid4()), HEADER + lines(5000) + ",,,,\n" * 10
    talk = Talk(stub, header(tenant, upload_id=upload_id), chunk(data), flush())
    eventually(lambda: bool(talk.all("ack")) and talk.all("ack")[-1].persisted_offset == len(data))
    assert len(_files(server, upload_id)) > 6
    _abort(stub, tenant, upload_id)
    # The stream waits for its client, and hears of it all the same.
    error = talk.wait_for("error", 5)
    talk.end()
    assert error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert talk.error is not None
    closed = grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_CLOSED", {"upload_id": upload_id}
    assert failure_of(talk.error) == closed
    assert _files(server, upload_id) == []
    assert _get(stub, tenant, upload_id).state == upload_pb2.UPLOAD_STATE_ABORTED
    assert list(client.list_tables(tenant)) == []
    _abort(stub, tenant, upload_id)
    assert Dialogue(stub, [header(tenant, upload_id=upload_id), finish()]).failure == closed
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ListRejects(upload_pb2.ListRejectsRequest(tenant_id=tenant, upload_id=upload_id)))
    assert failure_of(caught.value) == closed


def test_a_finished_upload_cannot_be_aborted(stub: PipelineServiceStub, client: Client, tenant: str) -> None:
    result = Dialogue(stub, [header(tenant), chunk(HEADER + lines(5)), finish()]).result
    with pytest.raises(grpc.RpcError) as caught:
        _abort(stub, tenant, result.upload_id)
    expected = "UPLOAD_FINISHED", {"upload_id": result.upload_id}
    assert failure_of(caught.value) == (grpc.StatusCode.FAILED_PRECONDITION, *expected)
    assert client.read_table(tenant, "interactions").num_rows == 5


def test_a_small_ingest_cannot_be_aborted(stub: PipelineServiceStub, tenant: str) -> None:
    row = row_pb2.Interaction(user_id="u", item_id="i", interaction_type="view", timestamp="2026-01-01")
    request = ingest_pb2.IngestInteractionsRequest(tenant_id=tenant, rows=[row])
    upload_id = stub.IngestInteractions(request).result.upload_id
    with pytest.raises(grpc.RpcError) as caught:
        _abort(stub, tenant, upload_id)
    expected = "UPLOAD_FINISHED", {"upload_id": upload_id}
    assert failure_of(caught.value) == (grpc.StatusCode.FAILED_PRECONDITION, *expected)


def test_aborts_and_finishes_at_once_agree_on_one_end(stub: PipelineServiceStub, tenant: str) -> None:
    for _ in range(8):
        upload_id = str(uuid.uuid4())
        talk = Talk(stub, header(tenant, upload_id=upload_id), chunk(HEADER + lines(5)), flush())
        talk.wait_for("ack")
        talk.say(finish())
        try:
            _abort(stub, tenant, upload_id)
            aborted = True
        except grpc.RpcError as error:
            assert failure_of(error)[1] == "UPLOAD_FINISHED"  # noqa: PT017
            aborted = False
        talk.end()
        assert bool(talk.all("result")) is not aborted
        state = _get(stub, tenant, upload_id).state
        assert state == (upload_pb2.UPLOAD_STATE_ABORTED if aborted else upload_pb2.UPLOAD_STATE_DONE)


def test_a_lost_result_is_got_again_and_the_rows_are_there_once(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    upload_id, data = str(uuid.uuid4()), HEADER + lines(2000)
    requests = [header(tenant, upload_id=upload_id), chunk(data), finish()]
    for delay in (0.0, 0.05, 0.1, 0.2):
        talk = Talk(stub, *requests)
        talk.wait_for("started")
        time.sleep(delay)
        talk.call.cancel()  # type: ignore[no-untyped-call]
        talk.end()
    results = [Dialogue(stub, requests).result for _ in range(2)]
    assert results[0] == results[1]
    assert results[0].rows_accepted == 2000
    assert client.read_table(tenant, "interactions").num_rows == 2000


def test_a_done_upload_leaves_no_sidecars_and_block_records(
    stub: PipelineServiceStub, server: Server, tenant: str
) -> None:
    upload_id = str(uuid.uuid4())
    result = Dialogue(
        stub, [header(tenant, upload_id=upload_id), chunk(HEADER + lines(5000) + lines(10)), finish()]
    ).result
    assert result.rows_duplicate == 10
    session = server.data_dir / "raw-data/_headrace/uploads" / tenant / upload_id
    eventually(lambda: sum(len(folders) + len(names) for _, folders, names in os.walk(session)) == 3)
    table = server.data_dir / "raw-data" / tenant / "interactions" / upload_id
    stored = sum(1 for _ in table.iterdir())
    blocks = -(-len(HEADER + lines(5010)) // 65536)
    assert stored <= blocks
    assert not (server.data_dir / "raw-data/_headrace/open" / tenant).exists()
    assert Dialogue(stub, [header(tenant, upload_id=upload_id)]).result == result


@pytest.mark.slow
def test_a_merged_file_outlives_the_sweeping_of_what_it_was_merged_from(
    phoenix: Phoenix, tenant: str
) -> None:
    """An upload that was resumed has the first of the files; it and the draft of the rest are swept late."""
    upload_id = f"00000000{str(uuid.uuid4())[8:]}"
    opening, data = header(tenant, upload_id=upload_id), HEADER + lines(9)
    with grpc.insecure_channel(phoenix.address) as channel:
        stub = PipelineServiceStub(channel)
        Dialogue(stub, [opening, chunk(data[:200]), flush()])
        persisted = Dialogue(stub, [opening]).started.persisted_offset
        assert persisted
        last = Dialogue(stub, [opening, chunk(data[persisted:], offset=persisted), finish()])
        assert last.result.rows_accepted == 9
    with Client(phoenix.address) as client:
        for number in range(63):
            row = {"user_id": "u", "item_id": f"late {number}", "interaction_type": "view"}
            client.ingest_interactions(tenant, [{**row, "timestamp": "2026-01-02"}])
        eventually(lambda: client.list_tables(tenant)[0].version == 65, 60)
        (table,) = client.list_tables(tenant)
        assert (table.files, table.rows) == (1, 72)
        rows = client.read_table(tenant, "interactions")
    root = phoenix.server.data_dir / "raw-data" / "_headrace"
    entry = root / "open" / tenant / upload_id
    assert entry.exists()
    assert list((root / "drafts").iterdir())
    phoenix.kill()
    phoenix.server = phoenix.start(HEADRACE_UPLOAD_TTL_SECONDS="1")
    try:
        eventually(lambda: not entry.exists(), 60)
        assert not list(files_below(root / "drafts"))
        with Client(phoenix.address) as client:
            assert client.read_table(tenant, "interactions") == rows
            before = client.read_table(tenant, "interactions", version=64)
            assert before.sort_by("item_id") == rows.sort_by("item_id")
    finally:
        phoenix.server.stop()


def test_an_upload_left_alone_expires_and_is_swept(
    hasty_stub: PipelineServiceStub, hasty: Server, tenant: str
) -> None:
    upload_id = str(uuid.uuid4())
    opening = header(tenant, upload_id=upload_id)
    Dialogue(hasty_stub, [opening, chunk(HEADER + lines(3000)), flush()])
    assert _files(hasty, upload_id) != []
    aborted = upload_pb2.UPLOAD_STATE_ABORTED
    eventually(lambda: _get(hasty_stub, tenant, upload_id).state == aborted)
    eventually(lambda: _files(hasty, upload_id) == [])
    assert Dialogue(hasty_stub, [opening]).failure[1] == "UPLOAD_CLOSED"
    entry = hasty.data_dir / "raw-data/_headrace/open" / tenant / upload_id
    eventually(lambda: not entry.exists())
    assert _get(hasty_stub, tenant, upload_id).state == aborted


def test_a_client_that_sends_a_byte_now_and_then_is_alive(
    hasty_stub: PipelineServiceStub, hasty: Server, tenant: str
) -> None:
    upload_id, data = str(uuid.uuid4()), (HEADER + lines(1)).encode()
    talk = Talk(hasty_stub, header(tenant, upload_id=upload_id), chunk(data[:-20]))
    for place in range(len(data) - 20, len(data)):
        time.sleep(2 * TTL_SECONDS / 20)
        talk.say(chunk(data[place : place + 1]))
        # It holds neither a worker nor a place: others are served meanwhile.
    records = hasty.data_dir / "raw-data/_headrace/uploads" / tenant / upload_id
    assert any('"alive"' in path.read_text() for path in records.iterdir())
    talk.say(finish(total_size=len(data)))
    talk.end()
    assert talk.error is None
    assert talk.all("result")[0].rows_accepted == 1


def test_a_silent_stream_ends_with_what_came_made_safe(hasty_stub: PipelineServiceStub, tenant: str) -> None:
    upload_id, data = str(uuid.uuid4()), (HEADER + lines(10)).encode()
    opening = header(tenant, upload_id=upload_id)
    talk = Talk(hasty_stub, opening, chunk(data))
    error = talk.wait_for("error", 10)
    assert error.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert talk.all("ack")[-1].persisted_offset == len(data)
    talk.end()
    assert talk.error is not None
    code, reason, metadata = failure_of(talk.error)
    assert (code, reason, metadata) == (grpc.StatusCode.UNAVAILABLE, "IDLE_TIMEOUT", {"idle_seconds": "2"})
    again = Dialogue(hasty_stub, [opening, finish()])
    assert again.started.persisted_offset == len(data)
    assert again.result.rows_accepted == 10


def test_uploads_beyond_the_limits_are_refused_before_anything_is_stored(
    hasty_stub: PipelineServiceStub, hasty: Server, tenant: str
) -> None:
    opening, data = header(tenant, upload_id=str(uuid.uuid4())), HEADER + lines(10)
    talks = [Talk(hasty_stub, opening, chunk(data))]
    talks[0].wait_for("started")
    talks += [Talk(hasty_stub, header(tenant)) for _ in range(2)]
    for talk in talks:
        talk.wait_for("started")
    refused = Dialogue(hasty_stub, [header(tenant, upload_id=(upload_id := str(uuid.uuid4()))), finish()])
    code, reason, metadata = refused.failure
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert metadata == {"limit": "3", "what": "uploads"}
    assert refused.error is not None
    status, retry = rpc_status.from_call(refused.error), error_details_pb2.RetryInfo()  # type: ignore[arg-type]
    assert status is not None
    assert any(detail.Unpack(retry) for detail in status.details)
    assert not (hasty.data_dir / "raw-data/_headrace/uploads" / tenant / upload_id).exists()
    # Others have room, up to the server's own limit; unary calls are not concerned.
    talks += [Talk(hasty_stub, header(f"{tenant}-{number}")) for number in range(2)]
    for talk in talks:
        talk.wait_for("started")
    # Beyond that the idlest of the tenant with the most gives way, and what it was sent is safe.
    assert Dialogue(hasty_stub, [header(f"{tenant}-x"), chunk(HEADER + lines(1)), finish()]).result
    assert talks[0].wait_for("error").code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    talks[0].end()
    assert talks[0].error is not None
    assert failure_of(talks[0].error)[1:] == ("GAVE_WAY", {"limit": "5", "what": "uploads"})
    assert talks[0].all("ack")[-1].persisted_offset == len(data)
    good = row_pb2.Interaction(user_id="u", item_id="i", interaction_type="view", timestamp="2026-01-01")
    hasty_stub.IngestInteractions(ingest_pb2.IngestInteractionsRequest(tenant_id=tenant, rows=[good]))
    for talk in talks[1:]:
        talk.end()
    assert Dialogue(hasty_stub, [opening, finish()]).result.rows_accepted == 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    with small_file_system(tmp_path / "disk") as disk:
        yield disk


@pytest.mark.parametrize(
    "leave_bytes",
    [0, pytest.param(64 << 10, marks=pytest.mark.slow), pytest.param(700 << 10, marks=pytest.mark.slow)],
)
def test_a_full_disk_refuses_and_the_upload_goes_on_once_there_is_room(
    small_disk: Path, own_server: Callable[..., Server], leave_bytes: int
) -> None:
    server = own_server(small_disk / "data", HEADRACE_BLOCK_BYTES="262144")
    upload_id, data = str(uuid.uuid4()), (HEADER + lines(120_000)).encode()
    opening = header("acme", upload_id=upload_id)

    def parts(persisted: int) -> list[upload_pb2.UploadRequest]:
        size = 1 << 20
        pieces = [chunk(data[i : i + size], offset=i) for i in range(persisted, len(data), size)]
        return [opening, *pieces, finish(total_size=len(data))]

    with grpc.insecure_channel(server.address) as channel, Client(server.address) as client:
        stub = PipelineServiceStub(channel)
        client.upload_rows("other", "items", [{"item_id": "i", "title": "x"}])
        filler = fill(small_disk, leave_bytes)
        for _ in range(3):
            talk = Dialogue(stub, parts(_persisted(stub, "acme", upload_id)))
            assert talk.failure[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL")
            assert talk.error is not None
            status, retry = rpc_status.from_call(talk.error), error_details_pb2.RetryInfo()  # type: ignore[arg-type]
            assert status is not None
            assert any(detail.Unpack(retry) for detail in status.details)
            assert str(small_disk) not in str(status)
        assert list((server.data_dir / ".scratch").iterdir()) == []
        # Nothing but whole blocks is stored, however often it was tried: data, sidecar, no rejects.
        records = server.data_dir / "raw-data/_headrace/uploads/acme" / upload_id
        blocks = sum('"block"' in path.read_text() for path in records.glob("0*"))
        assert len(_files(server, upload_id)) == 2 * blocks
        assert client.read_table("other", "items").num_rows == 1
        assert list(client.list_tables("acme")) == []
        filler.unlink()
        assert Dialogue(stub, parts(_persisted(stub, "acme", upload_id))).result.rows_accepted == 120_000
        rows = client.read_table("acme", "interactions")["row_number"].to_pylist()
        assert sorted(rows) == list(range(120_000))
    assert server.stop() == 0


def _workers(server: Server) -> list[psutil.Process]:
    """Ray's workers that run a stage at this moment: it puts that into their titles."""
    family = psutil.Process(server.process.pid).children(recursive=True)
    found = []
    for process in family:
        try:
            # Those that wait show their class, which has a capital.
            if re.match(r"ray::[a-z_]+ ", " ".join(process.cmdline())):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _kill_workers(server: Server, times: int, until: Callable[[], bool]) -> int:
    killed = 0
    while killed < times and not until():
        for process in _workers(server)[: times - killed]:
            process.kill()
            process.wait(10)
            killed += 1
        time.sleep(0.002)
    return killed


def test_a_worker_that_dies_once_costs_no_row(server_with: Callable[..., Server], tenant: str) -> None:
    server = server_with(RAY_ADDRESS="", HEADRACE_WORKERS="1")
    with grpc.insecure_channel(server.address) as channel:
        stub = PipelineServiceStub(channel)
        data = (HEADER + lines(200_000)).encode()
        pieces = [chunk(data[i : i + (1 << 20)]) for i in range(0, len(data), 1 << 20)]
        talk = Talk(stub, header(tenant), *pieces, finish())
        assert _kill_workers(server, 1, lambda: bool(talk.all("result"))) == 1
        talk.end()
        assert talk.error is None
        assert talk.all("result")[0].rows_accepted == 200_000


def test_a_block_that_ends_every_worker_is_refused_by_name_and_neighbours_are_not_concerned(
    server_with: Callable[..., Server], tenant: str
) -> None:
    server = server_with(RAY_ADDRESS="", HEADRACE_WORKERS="1")
    with grpc.insecure_channel(server.address) as channel, Client(server.address) as client:
        stub = PipelineServiceStub(channel)
        data = lines(150_000, first=10).encode()
        upload_id = str(uuid.uuid4())
        opening = header(tenant, upload_id=upload_id)
        talk = Talk(stub, opening, chunk(HEADER + lines(10)), flush())
        eventually(lambda: bool(talk.all("ack")) and talk.all("ack")[-1].persisted_offset > 0)
        first = len(HEADER + lines(10))
        # Less than a block: it is sent off by the flush.
        talk.say(*(chunk(data[i : i + (1 << 20)]) for i in range(0, len(data), 1 << 20)), flush())
        killed = _kill_workers(server, 3, lambda: bool(talk.all("error")))
        assert killed == 3
        neighbour = Dialogue(stub, [header(f"{tenant}-other"), chunk(HEADER + lines(7)), finish()])
        assert neighbour.result.rows_accepted == 7
        error = talk.wait_for("error", 60)
        talk.end()
        assert error.code == grpc.StatusCode.INTERNAL.value[0]
        assert talk.error is not None
        code, reason, metadata = failure_of(talk.error)
        assert (code, reason) == (grpc.StatusCode.INTERNAL, "POISON_BLOCK")
        assert metadata == {
            "block": "1",
            "byte_offset": str(first),
            "first_line": "12",
            "last_line": "150011",
        }
        # Whoever sent it waits before more of it is tried, and is told how long; nobody else does.
        code, reason, metadata = Dialogue(stub, [opening, chunk(lines(1, first=10)), finish()]).failure
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SUSPENDED")
        neighbour = Dialogue(stub, [header(f"{tenant}-third"), chunk(HEADER + lines(7)), finish()])
        assert neighbour.result.rows_accepted == 7
        time.sleep(float(metadata["retry_seconds"]))
        # The blocks before it are safe, and nothing keeps the upload from being tried again.
        again = Dialogue(stub, [opening, chunk(lines(1, first=10)), finish()])
        assert again.started.persisted_offset == first
        assert again.result.rows_accepted == 11
        assert client.health().status == "healthy"
