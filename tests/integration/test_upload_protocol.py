"""The upload protocol, message by message, against a real server."""

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import grpc
import pytest
from harness.dialogue import HEADER, Dialogue, chunk, cut, finish, flush, header, lines
from harness.server import Server
from harness.watch import files_below

from headrace import Client
from headrace.v1 import row_pb2, upload_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub


def _rows(client: Client, tenant: str) -> list[tuple[str, ...]]:
    table = client.read_table(tenant, "interactions")
    names = ("user_id", "item_id", "interaction_type", "timestamp", "row_number")
    return sorted(zip(*(map(str, table[name].to_pylist()) for name in names), strict=True))


def _nothing_stored(client: Client, tenant: str) -> bool:
    return list(client.list_tables(tenant)) == []


def test_a_chunk_before_the_header_is_refused_in_band(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    talk = Dialogue(stub, [chunk(HEADER), finish()])
    code, reason, metadata = talk.failure
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNEXPECTED_MESSAGE")
    assert metadata == {"expected": "header", "got": "chunk"}
    assert _nothing_stored(client, tenant)


def test_an_empty_stream_is_refused(stub: PipelineServiceStub) -> None:
    assert Dialogue(stub, []).failure[1] == "UNEXPECTED_MESSAGE"


def test_header_one_text_chunk_and_finish_are_enough(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    result = Dialogue(stub, [header(tenant), chunk(HEADER + lines(3)), finish()]).result
    assert result.outcome == upload_pb2.OUTCOME_COMMITTED
    assert (result.rows_received, result.rows_accepted, result.rows_rejected) == (3, 3, 0)
    assert result.HasField("version")
    assert len(_rows(client, tenant)) == 3


def test_without_finish_nothing_is_visible_and_the_upload_resumes(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    upload_id, data = str(uuid.uuid4()), (HEADER + lines(5000)).encode()
    half = len(data) // 2
    first = Dialogue(stub, [header(tenant, upload_id=upload_id), chunk(data[:half])])
    assert first.error is None
    assert first.all("result") == []
    assert _nothing_stored(client, tenant)
    persisted = first.all("ack")[-1].persisted_offset
    assert 0 < persisted <= half
    assert data[persisted - 1 : persisted] == b"\n"

    again = Dialogue(
        stub, [header(tenant, upload_id=upload_id), chunk(data[persisted:], offset=persisted), finish()]
    )
    assert again.started.persisted_offset == persisted
    assert again.result.rows_accepted == 5000
    assert len(_rows(client, tenant)) == 5000


def test_a_resumed_upload_equals_an_uninterrupted_one(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    data = (HEADER + lines(4000)).encode()
    Dialogue(stub, [header(tenant), chunk(data), finish()]).result  # noqa: B018
    other, upload_id = f"{tenant}-b", str(uuid.uuid4())
    for piece in cut(data, 10_000, 90_000, 90_001):
        talk = Dialogue(stub, [header(other, upload_id=upload_id)])
        offset = talk.started.persisted_offset
        end = data.index(piece) + len(piece)
        Dialogue(stub, [header(other, upload_id=upload_id), chunk(data[offset:end], offset=offset)])
    offset = Dialogue(stub, [header(other, upload_id=upload_id)]).started.persisted_offset
    rest = [chunk(data[offset:], offset=offset)] if offset < len(data) else []
    Dialogue(stub, [header(other, upload_id=upload_id), *rest, finish(total_size=len(data))]).result  # noqa: B018
    assert _rows(client, other) == _rows(client, tenant)


def test_a_replayed_chunk_is_acknowledged_and_changes_nothing(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    data = (HEADER + lines(10)).encode()
    talk = Dialogue(stub, [header(tenant), chunk(data, offset=0), flush(), chunk(data, offset=0), finish()])
    assert talk.result.rows_accepted == 10
    assert talk.result.rows_duplicate == 0


def test_a_straddling_chunk_is_trimmed(stub: PipelineServiceStub, tenant: str) -> None:
    data = (HEADER + lines(10)).encode()
    talk = Dialogue(
        stub, [header(tenant), chunk(data[:100], offset=0), chunk(data[40:], offset=40), finish()]
    )
    assert talk.result.rows_accepted == 10


def test_a_skipped_offset_names_the_expected_one_and_the_stream_goes_on(
    stub: PipelineServiceStub, tenant: str
) -> None:
    data = (HEADER + lines(10)).encode()
    talk = Dialogue(
        stub,
        [
            header(tenant),
            chunk(data[:60]),
            chunk(data[80:], offset=80),
            chunk(data[60:], offset=60),
            finish(),
        ],
    )
    (error,) = talk.all("error")
    assert error.code == grpc.StatusCode.OUT_OF_RANGE.value[0]
    assert "60" in error.message
    assert talk.result.rows_accepted == 10


def test_a_wrong_crc32c_is_refused_and_the_chunk_can_be_sent_again(
    stub: PipelineServiceStub, tenant: str
) -> None:
    data = (HEADER + lines(10)).encode()
    crc = google_crc32c.value(data)
    talk = Dialogue(stub, [header(tenant), chunk(data, crc32c=crc ^ 1), chunk(data, crc32c=crc), finish()])
    (error,) = talk.all("error")
    assert error.code == grpc.StatusCode.DATA_LOSS.value[0]
    assert talk.result.rows_received == 10


def test_a_finished_upload_answers_again_with_the_same_result(stub: PipelineServiceStub, tenant: str) -> None:
    requests = [header(tenant, upload_id=str(uuid.uuid4())), chunk(HEADER + lines(5)), finish()]
    first = Dialogue(stub, requests).result
    assert Dialogue(stub, requests).result == first
    assert Dialogue(stub, requests[:1]).result == first


@pytest.mark.parametrize("end", ["result", "error"])
def test_a_call_ends_though_its_client_does_not_half_close(
    stub: PipelineServiceStub, tenant: str, end: str
) -> None:
    over = threading.Event()

    def requests() -> Iterator[upload_pb2.UploadRequest]:
        yield header(tenant)
        yield chunk(b"user_id,item_id,interaction_type,timestamp\nu,i,view,2024-01-01\n")
        yield finish(total_size=None if end == "result" else 1)
        over.wait()

    call = stub.Upload(requests(), timeout=20)  # Below what a client that goes on writing is given.
    try:
        *_, last = call
        assert last.WhichOneof("response") == "result" == end
    except grpc.RpcError as error:
        assert (end, error.code()) == ("error", grpc.StatusCode.DATA_LOSS)  # noqa: PT017
    finally:
        over.set()


def test_a_known_upload_id_with_another_header_is_refused(stub: PipelineServiceStub, tenant: str) -> None:
    upload_id = str(uuid.uuid4())
    Dialogue(stub, [header(tenant, upload_id=upload_id), chunk(HEADER)])
    talk = Dialogue(stub, [header(tenant, upload_id=upload_id, data_type="items"), finish()])
    assert talk.failure == (grpc.StatusCode.ALREADY_EXISTS, "ID_IN_USE", {"upload_id": upload_id})


def test_a_wrong_total_size_fails_and_the_upload_stays_open(stub: PipelineServiceStub, tenant: str) -> None:
    upload_id, data = str(uuid.uuid4()), (HEADER + lines(5)).encode()
    talk = Dialogue(
        stub, [header(tenant, upload_id=upload_id), chunk(data), finish(total_size=len(data) + 7)]
    )
    assert talk.failure[:2] == (grpc.StatusCode.DATA_LOSS, "SIZE_MISMATCH")
    offset = Dialogue(stub, [header(tenant, upload_id=upload_id)]).started.persisted_offset
    again = Dialogue(
        stub, [header(tenant, upload_id=upload_id), chunk(data[offset:]), finish(total_size=len(data))]
    )
    assert again.result.rows_accepted == 5


def test_a_newer_stream_fences_the_older(stub: PipelineServiceStub, client: Client, tenant: str) -> None:
    upload_id, data = str(uuid.uuid4()), (HEADER + lines(50)).encode()
    newer: list[Dialogue] = []
    started, ended = threading.Event(), threading.Event()

    def older() -> Iterator[upload_pb2.UploadRequest]:
        yield header(tenant, upload_id=upload_id)
        yield chunk(data)
        assert started.wait(30)
        newer.append(Dialogue(stub, [header(tenant, upload_id=upload_id), chunk(data), finish()]))
        ended.set()
        yield flush()
        yield finish()

    talk = Dialogue(stub, older(), on_response=lambda _: started.set())
    # The older call ends while the newer one still runs.
    assert ended.wait(60)
    assert newer[0].result.rows_accepted == 50
    assert talk.failure[:2] == (grpc.StatusCode.ABORTED, "FENCED")
    assert len(_rows(client, tenant)) == 50


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tenant_id": "../etc"}, "tenant_id"),
        ({"tenant_id": ""}, "tenant_id"),
        ({"tenant_id": "a" * 64}, "tenant_id"),
        ({"data_type": "users"}, "data_type"),
        ({"upload_id": "7"}, "upload_id"),
        ({"max_reject_ratio": 1.5}, "max_reject_ratio"),
        ({"max_reject_ratio": float("nan")}, "max_reject_ratio"),
        ({"policy": 9}, "policy"),
        ({"format": 9}, "format"),
        ({"compression": 9}, "compression"),
        ({"format": upload_pb2.FORMAT_ROWS, "compression": upload_pb2.COMPRESSION_GZIP}, "compression"),
        ({"format": upload_pb2.FORMAT_PARQUET, "compression": upload_pb2.COMPRESSION_ZSTD}, "compression"),
    ],
)
def test_a_bad_header_field_is_named(
    stub: PipelineServiceStub, fields: dict[str, object], field: str
) -> None:
    values = {"tenant_id": "acme", "data_type": "interactions", **fields}
    talk = Dialogue(stub, [upload_pb2.UploadRequest(header=upload_pb2.UploadHeader(**values)), finish()])  # type: ignore[arg-type]
    assert talk.failure == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", {"field": field})


def test_rows_come_in_as_messages(stub: PipelineServiceStub, client: Client, tenant: str) -> None:
    rows = [
        row_pb2.Interaction(
            user_id="u", item_id="i", interaction_type="like", timestamp="2026-01-01", rating=4.5
        ),
        row_pb2.Interaction(user_id="u", item_id="j", interaction_type="nod", timestamp="2026-01-01"),
        row_pb2.Interaction(user_id="u", interaction_type="like", timestamp="2026-01-01", rating=9.0),
    ]
    message = upload_pb2.UploadRequest(chunk=upload_pb2.UploadChunk(rows=row_pb2.RowBatch(interactions=rows)))
    talk = Dialogue(stub, [header(tenant, format=upload_pb2.FORMAT_ROWS), message, finish(total_size=3)])
    result = talk.result
    assert (result.rows_received, result.rows_accepted, result.rows_rejected) == (3, 1, 2)
    assert {(check.column, check.code) for check in result.report.checks} == {
        ("interaction_type", "NOT_IN_SET"),
        ("item_id", "MISSING"),
        ("rating", "OUT_OF_RANGE"),
    }
    assert len(_rows(client, tenant)) == 1


def test_bytes_in_a_rows_stream_are_refused(stub: PipelineServiceStub, tenant: str) -> None:
    talk = Dialogue(stub, [header(tenant, format=upload_pb2.FORMAT_ROWS), chunk(HEADER), finish()])
    assert talk.failure[1:] == ("INVALID_FIELD", {"field": "chunk.rows"})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "NO_HEADER"),
        (b"\n\n", "NO_HEADER"),
        (b"user_id,item_id\n1,2\n", "MISSING_COLUMN"),
        (b"user_id,item_id,interaction_type,timestamp,user_id\n", "DUPLICATE_COLUMN"),
        (HEADER.encode("utf-16"), "BAD_ENCODING"),
        (bytes(range(256)) * 64, "BAD_ENCODING"),
        (HEADER.encode() + b'u,i,view,"' + b"x" * (2 << 20), "RECORD_TOO_LARGE"),
        ((HEADER + lines(9_000) + "u,i,rate,").encode() + b"x" * (2 << 20), "RECORD_TOO_LARGE"),
    ],
    ids=[
        "empty",
        "blank",
        "no column",
        "twice a column",
        "utf-16",
        "garbage",
        "2 MiB record",
        "blocks before it",
    ],
)
def test_a_stream_that_is_no_csv_of_the_contract_fails_and_leaves_only_why(
    stub: PipelineServiceStub, client: Client, server: Server, tenant: str, data: bytes, reason: str
) -> None:
    talk = Dialogue(stub, [header(tenant), *(chunk(piece) for piece in cut(data, len(data) // 2)), finish()])
    assert talk.failure[:2] == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert _nothing_stored(client, tenant)
    found = files_below(server.data_dir)
    left = [path for path in found if f"/{tenant}/" in str(path) and "/upload-list/" not in str(path)]
    assert [json.loads(path.read_bytes())["kind"] for path in sorted(left)] == ["open", "abort"]
    assert client.health().status == "healthy"


def test_an_id_whose_stream_was_unreadable_tells_the_same_again(
    stub: PipelineServiceStub, tenant: str
) -> None:
    upload_id = str(uuid.uuid4())
    first = Dialogue(stub, [header(tenant, upload_id=upload_id), chunk("user_id\n1\n"), finish()])
    assert first.failure[1] == "MISSING_COLUMN"
    again = Dialogue(stub, [header(tenant, upload_id=upload_id), chunk(HEADER + lines(3)), finish()])
    assert again.failure == first.failure


def test_the_record_too_large_is_named_by_line_and_offset(stub: PipelineServiceStub, tenant: str) -> None:
    data = HEADER + lines(2) + "u,i,view,2026-01-01," + "9" * (2 << 20)
    failure = Dialogue(stub, [header(tenant), chunk(data), finish()]).failure
    offset = len(HEADER + lines(2))
    assert failure[2] == {"line": "4", "byte_offset": str(offset), "limit_bytes": str(1 << 20)}


def test_unknown_columns_fail_the_upload_only_on_request(stub: PipelineServiceStub, tenant: str) -> None:
    data = "user_id,item_id,interaction_type,timestamp,colour\nu,i,view,2026-01-01,red\n"
    ignored = Dialogue(stub, [header(tenant), chunk(data), finish()]).result
    assert [
        (each.code, each.column) for each in ignored.report.warnings if each.code == "UNKNOWN_COLUMN"
    ] == [("UNKNOWN_COLUMN", "colour")]
    rejected = header(tenant, unknown_columns=upload_pb2.UNKNOWN_COLUMNS_REJECT)
    failure = Dialogue(stub, [rejected, chunk(data), finish()]).failure
    assert failure == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_COLUMN", {"columns": "colour"})


def test_only_a_header_line_is_an_empty_upload(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    result = Dialogue(stub, [header(tenant), chunk(HEADER), finish()]).result
    assert result.outcome == upload_pb2.OUTCOME_EMPTY
    assert (result.rows_received, result.table_uri, result.HasField("version")) == (0, "", False)
    assert _nothing_stored(client, tenant)


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, upload_pb2.OUTCOME_COMMITTED),
        ({"policy": upload_pb2.POLICY_ALL_OR_NOTHING}, upload_pb2.OUTCOME_REFUSED),
        ({"max_rejects": 1}, upload_pb2.OUTCOME_REFUSED),
        ({"max_rejects": 2}, upload_pb2.OUTCOME_COMMITTED),
        ({"max_reject_ratio": 0.1}, upload_pb2.OUTCOME_REFUSED),
        ({"max_reject_ratio": 0.2}, upload_pb2.OUTCOME_COMMITTED),
        ({"max_reject_ratio": 0.0}, upload_pb2.OUTCOME_REFUSED),
    ],
)
def test_policy_and_limits_decide_the_outcome(
    stub: PipelineServiceStub, client: Client, tenant: str, fields: dict[str, object], outcome: int
) -> None:
    # Ten records, two of them bad (one by two rules), and one duplicate, which counts towards no limit.
    data = HEADER + lines(7) + lines(1) + ",,view,2026-01-01,\n" + "u,i,nod,2026-01-01,\n"
    result = Dialogue(stub, [header(tenant, **fields), chunk(data), finish()]).result
    assert result.outcome == outcome
    assert (result.rows_received, result.rows_accepted, result.rows_rejected, result.rows_duplicate) == (
        10,
        7,
        3,
        1,
    )
    published = outcome == upload_pb2.OUTCOME_COMMITTED
    rejects = client.read_table(tenant, "rejects")
    assert set(rejects["published"].to_pylist()) == {published}
    assert rejects.num_rows == 4
    assert ("interactions" in [table.name for table in client.list_tables(tenant)]) == published
    assert bool(result.refusal) != published


def test_duplicates_do_not_make_all_or_nothing_refuse(stub: PipelineServiceStub, tenant: str) -> None:
    data = HEADER + lines(3) + lines(3)
    talk = Dialogue(stub, [header(tenant, policy=upload_pb2.POLICY_ALL_OR_NOTHING), chunk(data), finish()])
    assert talk.result.outcome == upload_pb2.OUTCOME_COMMITTED
    assert talk.result.rows_duplicate == 3


def test_duplicates_are_found_across_blocks_and_the_first_stays(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    # Far apart: the blocks of this server hold 64 KiB.
    data = HEADER + lines(6000) + lines(100)
    result = Dialogue(stub, [header(tenant), chunk(data), finish()]).result
    assert (result.rows_received, result.rows_accepted, result.rows_duplicate) == (6100, 6000, 100)
    rejects = list(client.list_rejects(tenant, result.upload_id))
    assert [(each.row_number, each.duplicate_of) for each in rejects] == [(6000 + n, n) for n in range(100)]
    assert all(each.code == "DUPLICATE" and not each.HasField("raw") for each in rejects)
    assert rejects[0].line == 6002
    assert rejects[0].byte_offset == len(HEADER + lines(6000))
    assert len(_rows(client, tenant)) == 6000


def test_many_bad_rows_give_an_exact_total_and_a_bounded_list(
    stub: PipelineServiceStub, client: Client, tenant: str
) -> None:
    data = HEADER + ",i,view,2026-01-01,\n" * 100_000
    talk = Dialogue(
        stub, [header(tenant), *(chunk(piece) for piece in cut(data.encode(), 1 << 20)), finish()]
    )
    assert talk.result.rows_rejected == 100_000
    assert sum(len(errors.errors) for errors in talk.all("row_errors")) == 100
    assert sum(1 for _ in client.list_rejects(tenant, talk.result.upload_id)) == 100_000
    assert sum(1 for _ in client.list_rejects(tenant, talk.result.upload_id, limit=1500)) == 1500


def test_stored_rows_carry_upload_row_number_and_start(
    stub: PipelineServiceStub, server: Server, client: Client, tenant: str
) -> None:
    result = Dialogue(stub, [header(tenant), chunk(HEADER + lines(3)), finish()]).result
    rows = client.read_table(tenant, "interactions").to_pylist()
    upload = client.get_upload(tenant, result.upload_id)
    assert {row["upload_id"] for row in rows} == {result.upload_id}
    assert sorted(row["row_number"] for row in rows) == [0, 1, 2]
    assert {row["ingested_at"].timestamp() for row in rows} == {upload.create_time.ToMicroseconds() / 1e6}
    assert upload.state == upload_pb2.UPLOAD_STATE_DONE
    assert upload.result == result
    assert Path(result.table_uri.removeprefix("file://")).is_relative_to(server.data_dir)
