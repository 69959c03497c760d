"""The SDK against a real server over a real channel, sync and aio."""

import asyncio
import csv
import io
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest

import headrace
from headrace import errors
from headrace.sample import Generated, Sample, generate
from headrace.v1 import run_pb2, upload_pb2, validation_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

HEADER = "user_id,item_id,interaction_type,timestamp,rating\n"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    """A small shop, 2 % of it dirty."""
    made = Sample(users=300, items=200, interactions=8_000, seed=3, dirty=0.02)
    return generate(made, tmp_path_factory.mktemp("sample"))


@pytest.fixture
def client(server: Any) -> Iterator[headrace.Client]:
    with headrace.Client(server.address) as opened:
        yield opened


def checks_of(report: validation_pb2.Report) -> dict[tuple[str, str], int]:
    return {(check.column, check.code): check.failing_rows for check in report.checks}


def expected_checks(sample: Generated, name: str) -> dict[tuple[str, str], int]:
    return {
        (check["column"], check["code"]): check["failing_rows"] for check in sample.counts[name]["checks"]
    }


def counts_of(result: upload_pb2.UploadResult | validation_pb2.Report) -> dict[str, int]:
    names = ("rows_received", "rows_accepted", "rows_rejected", "rows_duplicate")
    return {name: getattr(result, name) for name in names}


def expected_counts(sample: Generated, name: str) -> dict[str, int]:
    return {key: value for key, value in sample.counts[name].items() if key != "checks"}


def clean_rows(file: Path) -> list[dict[str, object]]:
    with file.open(newline="", errors="surrogateescape") as opened:
        rows = [row for row in csv.DictReader(opened) if None not in row and None not in row.values()]
    kept = [row for row in rows if row["user_id"].isascii() and row["rating"] in ("", "1.0", "2.5", "5.0")]
    return [{**row, "rating": float(row["rating"]) if row["rating"] else None} for row in kept]


@pytest.mark.parametrize("name", ["items", "interactions"])
def test_a_dirty_file_is_counted_exactly_as_it_was_made(
    client: headrace.Client, sample: Generated, tenant: str, name: Any
) -> None:
    result = client.upload(tenant, name, getattr(sample, name))
    assert result.outcome == upload_pb2.OUTCOME_COMMITTED
    assert counts_of(result) == counts_of(result.report) == expected_counts(sample, name)
    assert checks_of(result.report) == expected_checks(sample, name)
    rejects = list(client.list_rejects(tenant, result.upload_id))
    assert Counter((reject.column, reject.code) for reject in rejects) == expected_checks(sample, name)
    assert len(list(client.list_rejects(tenant, result.upload_id, limit=5))) == 5
    assert client.read_table(tenant, name).num_rows == result.rows_accepted


async def test_the_aio_client_says_the_same(server: Any, sample: Generated, tenant: str) -> None:
    async with headrace.AsyncClient(server.address) as client:
        progress: list[headrace.Progress] = []
        result = await client.upload(tenant, "interactions", sample.interactions, on_progress=progress.append)
        assert counts_of(result) == expected_counts(sample, "interactions")
        assert [reject async for reject in client.list_rejects(tenant, result.upload_id, limit=3)]
        assert counts_of(await client.validate("interactions", sample.interactions)) == counts_of(result)
        features = await client.compute_features(tenant)
        users = await client.read_table(tenant, "user_features")
        assert users.num_rows == next(t.rows for t in features.outputs if t.table == "user_features")
        negatives = await client.sample_negatives(tenant, negative_ratio=2, seed=1)
        assert (await client.read_table(tenant, "training_data")).num_rows == negatives.output.rows
        assert {table.name for table in await client.list_tables(tenant)} >= {"interactions", "training_data"}
        assert (await client.get_upload(tenant, result.upload_id)).result == result
        assert (await client.get_schema("items")).columns[0].name == "item_id"
        assert (await client.health()).status == "healthy"
    assert progress[-1].offset > 0


def test_progress_tells_what_the_server_acknowledged(
    client: headrace.Client, sample: Generated, tenant: str
) -> None:
    progress: list[headrace.Progress] = []
    client.upload(tenant, "interactions", sample.interactions, on_progress=progress.append)
    offsets = [each.offset for each in progress]
    size = sample.interactions.stat().st_size
    assert offsets == sorted(offsets)
    assert 0 < offsets[-1] <= size
    assert {each.total for each in progress} == {size}


def test_rows_and_csv_give_the_same_table(client: headrace.Client, sample: Generated, tenant: str) -> None:
    rows = clean_rows(sample.interactions)
    by_rows = client.upload_rows(tenant, "interactions", iter(rows))
    text = HEADER + "".join(
        f"{r['user_id']},{r['item_id']},{r['interaction_type']},{r['timestamp']},{r['rating'] or ''}\n"
        for r in rows
    )
    other = f"{tenant}b"
    by_csv = client.upload(other, "interactions", io.BytesIO(text.encode()))
    assert counts_of(by_rows) == counts_of(by_csv)
    columns = ["user_id", "item_id", "interaction_type", "timestamp", "rating"]
    order = [(name, "ascending") for name in columns]
    tables = [client.read_table(t, "interactions", columns=columns).sort_by(order) for t in (tenant, other)]
    assert tables[0].equals(tables[1])


def test_json_lines_are_uploaded_as_rows(client: headrace.Client, tenant: str, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"item_id": "i1", "title": "Chair", "price": 9.5}\n{"item_id": "i2"}\n')
    result = client.upload(tenant, "items", file)
    assert (result.rows_accepted, result.rows_rejected) == (1, 1)
    assert client.validate("items", file).rows_rejected == 1


def test_a_row_that_no_message_can_carry_stops_the_upload_and_leaves_nothing(
    client: headrace.Client, tenant: str
) -> None:
    rows: list[Any] = [{"item_id": "i1", "title": "Chair"}, {"item_id": 1.5, "title": "Desk"}]
    with pytest.raises(ValueError, match=r"Row 1: item_id is 1\.5"):
        client.upload_rows(tenant, "items", rows)
    assert client.list_tables(tenant) == []


def test_validate_reports_what_upload_would_and_stores_nothing(
    client: headrace.Client, sample: Generated, tenant: str
) -> None:
    validated = client.validate("interactions", sample.interactions)
    assert client.list_tables(tenant) == []
    uploaded = client.upload(tenant, "interactions", sample.interactions).report
    for report in (validated, uploaded):
        for reject in (reject for check in report.checks for reject in check.samples):
            reject.message = ""  # it may name the time of the call
    assert validated == uploaded
    assert client.validate_rows("items", [{"item_id": "i", "title": "t"}]).rows_accepted == 1


def test_a_sample_may_have_values_of_any_json_type(client: headrace.Client) -> None:
    report = client.validate_sample(
        "items", [{"item_id": "i1", "title": 17.5}, {"item_id": "i2", "title": "ok"}]
    )
    assert checks_of(report) == {("title", "BAD_TYPE"): 1}


@pytest.mark.parametrize("value", [object(), {"a"}, "\ud800", datetime(2026, 1, 1)])
def test_a_sample_with_a_value_that_json_lacks_names_row_and_column(
    client: headrace.Client, value: object
) -> None:
    with pytest.raises(ValueError, match="Row 1: title is "):
        client.validate_sample("items", [{"item_id": "i1", "title": "ok"}, {"item_id": "i2", "title": value}])


def test_the_digits_of_a_large_id_are_never_guessed(client: headrace.Client) -> None:
    rows = [{"item_id": 2**53 - 1, "title": "t"}, {"item_id": 2**53, "title": "t"}]
    assert checks_of(client.validate_sample("items", rows)) == {("item_id", "BAD_TYPE"): 1}


def test_all_or_nothing_refuses_and_keeps_the_rejects(
    client: headrace.Client, sample: Generated, tenant: str
) -> None:
    result = client.upload(tenant, "interactions", sample.interactions, policy="all_or_nothing")
    assert result.outcome == upload_pb2.OUTCOME_REFUSED
    assert result.refusal
    assert not result.HasField("version")
    assert list(client.list_rejects(tenant, result.upload_id, limit=1))
    with pytest.raises(errors.TableNotFoundError):
        client.read_table(tenant, "interactions")


def test_a_file_that_is_no_table_of_rows_is_a_bad_data_error_with_its_reason(
    client: headrace.Client, tenant: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    for content, reason in (
        ("user_id,timestamp\nu1,2026-01-01\n", "MISSING_COLUMN"),
        (HEADER.replace("rating", "user_id") + "u1,i1,view,2026-01-01,u1\n", "DUPLICATE_COLUMN"),
        (HEADER + f"u1,{'x' * (2 << 20)},view,2026-01-01,\n", "RECORD_TOO_LARGE"),
        ("", "NO_HEADER"),
    ):
        file.write_text(content)
        for call in (
            lambda: client.upload(tenant, "interactions", file),
            lambda: client.validate("interactions", file),
        ):
            with pytest.raises(errors.BadDataError) as raised:
                call()
            assert raised.value.reason == reason
    assert client.list_tables(tenant) == []


TIMES = pytest.mark.parametrize("times", [10, pytest.param(100, marks=pytest.mark.slow)])


@TIMES
async def test_an_aio_client_writing_flat_out_sees_the_error_every_time(
    server: Any, tenant: str, tmp_path: Path, times: int
) -> None:
    file = tmp_path / "x.csv"
    line = "u1,i1,view,2026-01-01T00:00:00Z,\n"
    file.write_text(HEADER + line * 1_000 + f"u1,{'x' * (2 << 20)},view,2026-01-01,\n" + line * 300_000)
    async with headrace.AsyncClient(server.address) as client:
        for _ in range(times):
            with pytest.raises(errors.BadDataError, match=r"\[upload ") as raised:
                await client.upload(tenant, "interactions", file)
            assert raised.value.reason == "RECORD_TOO_LARGE"
    assert file.stat().st_size > 10 << 20


@TIMES
async def test_an_aio_stub_that_writes_on_whatever_it_hears_has_the_error_in_band_every_time(
    server: Any, tenant: str, times: int
) -> None:
    async def requests() -> AsyncIterator[upload_pb2.UploadRequest]:
        header = upload_pb2.UploadHeader(tenant_id=tenant, data_type="interactions")
        yield upload_pb2.UploadRequest(header=header)
        for n in range(40):
            data = b"user_id,timestamp\n" if n == 0 else b"u1,2026-01-01\n" * 20_000
            yield upload_pb2.UploadRequest(chunk=upload_pb2.UploadChunk(data=data))

    async with grpc.aio.insecure_channel(server.address) as channel:
        for _ in range(times):
            heard: list[str | None] = []
            # It may lose the status of the call, and be told another: why the error comes in band first.
            with pytest.raises(grpc.aio.AioRpcError):
                async for response in PipelineServiceStub(channel).Upload(requests()):
                    heard.append(response.WhichOneof("response"))
                    error = response.error
            assert heard[-1] == "error"
            assert errors.from_status(error).reason == "MISSING_COLUMN"


def test_errors_are_typed_and_carry_their_metadata(client: headrace.Client, tenant: str) -> None:
    with pytest.raises(errors.InvalidArgumentError) as invalid:
        client.upload_rows("no spaces", "items", [])
    assert invalid.value.metadata["field"] == "tenant_id"
    with pytest.raises(errors.TableNotFoundError):
        client.read_table(tenant, "items")
    with pytest.raises(errors.UploadNotFoundError):
        client.get_upload(tenant, str(uuid.uuid4()))
    with pytest.raises(errors.NoInteractionsError):
        client.compute_features(tenant)
    client.upload_rows(tenant, "items", [{"item_id": "i1", "title": "Chair"}])
    with pytest.raises(errors.VersionNotFoundError) as missing:
        client.read_table(tenant, "items", version=99)
    assert missing.value.metadata["version"] == "99"


def test_a_file_that_is_not_what_its_name_says_is_bad_data(
    client: headrace.Client, tenant: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.parquet"
    file.write_bytes(b"PAR1")
    with pytest.raises(errors.BadDataError):
        client.upload(tenant, "items", file)


def test_no_server_is_an_unavailable_error(tmp_path: Path) -> None:
    with (
        headrace.Client("127.0.0.1:1") as client,
        pytest.raises(headrace.UnavailableError, match=r"127\.0\.0\.1:1"),
    ):
        client.health()


def test_an_upload_that_ended_answers_again_with_its_result(
    client: headrace.Client, sample: Generated, tenant: str
) -> None:
    upload_id = str(uuid.uuid4())
    first = client.upload(tenant, "items", sample.items, upload_id=upload_id)
    again = client.upload(tenant, "items", sample.items, upload_id=upload_id)
    assert again == first
    assert client.read_table(tenant, "items").num_rows == first.rows_accepted
    with pytest.raises(errors.IdInUseError):
        client.upload(tenant, "items", sample.items, upload_id=upload_id, policy="all_or_nothing")


def test_small_batches_are_visible_at_once_and_stored_once(client: headrace.Client, tenant: str) -> None:
    rows = [{"user_id": "u1", "item_id": "i1", "interaction_type": "view", "timestamp": "2026-01-01"}, {}]
    request_id = str(uuid.uuid4())
    first = client.ingest_interactions(tenant, rows, request_id=request_id)
    assert client.ingest_interactions(tenant, rows, request_id=request_id) == first
    assert (first.result.rows_accepted, first.result.rows_rejected) == (1, 1)
    assert {error.row_number for error in first.row_errors.errors} == {1}
    assert client.read_table(tenant, "interactions").num_rows == 1
    assert client.ingest_items(tenant, [{"item_id": "i1", "title": "Chair"}]).result.rows_accepted == 1


def test_features_and_negatives_tell_progress_and_leave_tables(
    client: headrace.Client, sample: Generated, tenant: str
) -> None:
    for name in ("items", "interactions"):
        client.upload(tenant, name, getattr(sample, name))
    seen: list[run_pb2.RunProgress] = []
    features = client.compute_features(tenant, on_progress=seen.append)
    assert {version.table for version in features.outputs} == {"user_features", "item_features"}
    assert features.interactions == expected_counts(sample, "interactions")["rows_accepted"]
    assert len({progress.stage for progress in seen}) >= 2
    negatives = client.sample_negatives(tenant, dataset="small", negative_ratio=3, strategy="uniform", seed=7)
    table = client.read_table(tenant, "small")
    assert table.num_rows == negatives.positives + negatives.negatives == negatives.output.rows
    assert set(table["negative_source"].drop_null().to_pylist()) == {"uniform"}
    again = client.sample_negatives(tenant, dataset="small", negative_ratio=3, strategy="uniform", seed=7)
    assert again.output.version == negatives.output.version + 1
    assert client.read_table(tenant, "small").equals(table)


def test_reading_takes_a_version_columns_and_a_limit(client: headrace.Client, tenant: str) -> None:
    uploads = [client.upload_rows(tenant, "items", [{"item_id": t, "title": t}]) for t in ("Chair", "Desk")]
    assert client.read_table(tenant, "items").num_rows == 2
    versions = [client.read_table(tenant, "items", version=upload.version) for upload in uploads]
    assert [table.num_rows for table in versions] == [1, 2]
    some = client.read_table(tenant, "items", columns=["price", "title"], limit=1)
    assert some.column_names == ["price", "title"]
    assert some.num_rows == 1
    assert some.schema.field("price").type == pa.float64()


def test_an_option_that_there_is_not_is_refused_and_nothing_is_sent(
    client: headrace.Client, tenant: str
) -> None:
    with pytest.raises(TypeError, match=r"Unknown option 'polcy'; expected one of .*policy"):
        client.upload_rows(tenant, "interactions", [], polcy="all_or_nothing")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="policy is 'strict'; expected one of all_or_nothing, quarantine"):
        client.upload_rows(tenant, "interactions", [], policy="strict")  # type: ignore[arg-type]
    assert list(client.list_tables(tenant)) == []


HEADER_LINE = b"user_id,item_id,interaction_type,timestamp\n"
DONE = HEADER_LINE + b"u1,i1,view,2024-01-01\n"


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (HEADER_LINE + b"u1,i2,view,2024-01-01\n", "not the same content"),
        (DONE + b"u2,i1,view,2024-01-01\n", "There are 87 bytes, but the upload was finished with 65"),
        (HEADER_LINE, "There are (only )?43 bytes, but .*65"),
    ],
    ids=["changed", "longer", "shorter"],
)
@pytest.mark.parametrize("way", ["sync", "aio"])
def test_a_finished_upload_answers_again_only_to_what_it_was_made_of(
    server: Any, tenant: str, tmp_path: Path, other: bytes, says: str, way: str
) -> None:
    upload_id = str(uuid.uuid4())

    def send(content: bytes) -> upload_pb2.UploadResult:
        path = tmp_path / "x.csv"
        path.write_bytes(content)
        if way == "aio":
            return asyncio.run(send_aio(path))
        with headrace.Client(server.address) as client:
            return client.upload(tenant, "interactions", path, upload_id=upload_id)

    async def send_aio(path: Path) -> upload_pb2.UploadResult:
        async with headrace.AsyncClient(server.address) as client:
            return await client.upload(tenant, "interactions", path, upload_id=upload_id)

    first = send(DONE)
    with pytest.raises(ValueError, match=says):
        send(other)
    assert send(DONE) == first
