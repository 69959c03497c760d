"""Tables, frames and packed files through the SDK; giving uploads up; checksums of whole uploads."""

import asyncio
import gzip
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from harness.phoenix import Phoenix
from typer.testing import CliRunner

import headrace
from headrace import errors
from headrace.cli.app import app
from headrace.sample import Sample, generate
from headrace.v1 import upload_pb2

pytestmark = pytest.mark.timeout(300)

COLUMNS = ["user_id", "item_id", "interaction_type", "timestamp", "rating"]


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clean interactions."""
    made = Sample(users=500, items=200, interactions=20_000, seed=3)
    return generate(made, tmp_path_factory.mktemp("sample")).interactions


@pytest.fixture(scope="module")
def table(csv: Path) -> pa.Table:
    """The same as Arrow."""
    types = {"user_id": pa.string(), "item_id": pa.string(), "timestamp": pa.timestamp("us", tz="UTC")}
    options = pa.csv.ConvertOptions(column_types=types)
    return pa.csv.read_csv(csv, convert_options=options)


def stored(client: headrace.Client, tenant: str) -> pa.Table:
    found = client.read_table(tenant, "interactions", columns=COLUMNS)
    return found.sort_by([(name, "ascending") for name in COLUMNS])


@pytest.fixture
def as_csv(client: headrace.Client, tenant: str, csv: Path) -> pa.Table:
    """What the CSV file becomes."""
    client.upload(f"{tenant}-csv", "interactions", csv)
    return stored(client, f"{tenant}-csv")


@pytest.mark.parametrize(
    "make",
    [
        lambda table: table,
        lambda table: table.to_reader(max_chunksize=1_000),
        lambda table: table.combine_chunks().to_batches()[0],
        pl.from_arrow,
        lambda table: pl.DataFrame(pl.from_arrow(table)).with_columns(
            pl.col("interaction_type").cast(pl.Categorical)
        ),
    ],
    ids=["table", "reader", "batch", "polars", "categorical"],
)
def test_a_table_is_stored_as_its_csv_is(
    client: headrace.Client, tenant: str, table: pa.Table, as_csv: pa.Table, make: Callable[[pa.Table], Any]
) -> None:
    result = client.upload_table(tenant, "interactions", make(table))
    assert (result.rows_received, result.rows_rejected) == (20_000, 0)
    assert stored(client, tenant).equals(as_csv)


async def test_the_aio_client_takes_tables_too(
    server: Any, client: headrace.Client, tenant: str, table: pa.Table, as_csv: pa.Table
) -> None:
    async with headrace.AsyncClient(server.address) as aclient:
        await aclient.upload_table(tenant, "interactions", table.to_reader(max_chunksize=1_000))
    found = await asyncio.to_thread(stored, client, tenant)
    assert found.equals(as_csv)


def written(table: pa.Table, csv: Path, folder: Path) -> Iterator[Path]:
    """The table in every file format, by the names that tell it."""
    pa.parquet.write_table(table, folder / "x.parquet")
    yield folder / "x.parquet"
    pa.feather.write_feather(table, folder / "x.feather")
    yield folder / "x.feather"
    with pa.ipc.new_file(folder / "x.arrow", table.schema) as file:
        file.write_table(table)
    yield folder / "x.arrow"
    with pa.ipc.new_stream(folder / "x.arrows", table.schema) as stream:
        stream.write_table(table)
    yield folder / "x.arrows"
    (folder / "x.csv.gz").write_bytes(gzip.compress(csv.read_bytes()))
    yield folder / "x.csv.gz"
    with pa.CompressedOutputStream(str(folder / "x.csv.zst"), "zstd") as packed:
        packed.write(csv.read_bytes())
    yield folder / "x.csv.zst"


def test_files_of_every_format_are_stored_as_the_csv_is(
    client: headrace.Client, tenant: str, table: pa.Table, csv: Path, as_csv: pa.Table, tmp_path: Path
) -> None:
    for number, file in enumerate(written(table, csv, tmp_path)):
        result = client.upload(f"{tenant}-{number}", "interactions", file)
        assert (result.rows_received, result.rows_rejected) == (20_000, 0), file.name
        assert stored(client, f"{tenant}-{number}").equals(as_csv), file.name


def test_a_reader_goes_on_after_its_server_was_killed(phoenix: Phoenix, tenant: str, table: pa.Table) -> None:
    batches = table.to_batches(max_chunksize=1_000)

    def once() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(batches):
            if number == 10:
                phoenix.kill_and_rise()
            yield batch

    reader = pa.RecordBatchReader.from_batches(table.schema, once())
    with headrace.Client(phoenix.address) as client:
        result = client.upload_table(tenant, "interactions", reader)
        assert (result.rows_received, result.rows_rejected) == (20_000, 0)
        client.upload_table(f"{tenant}-calm", "interactions", table)
        assert stored(client, tenant).equals(stored(client, f"{tenant}-calm"))


def half_an_upload(client: headrace.Client, tenant: str, csv: Path) -> str:
    """Begins an upload and stops in the middle; its id."""
    upload_id = str(uuid.uuid4())

    class Broken(Exception):
        pass

    def stop(progress: headrace.Progress) -> None:
        if progress.offset:
            raise Broken

    with pytest.raises(Broken):
        client.upload(tenant, "interactions", csv, upload_id=upload_id, on_progress=stop)
    return upload_id


def test_a_changed_file_is_refused_when_it_would_go_on(
    client: headrace.Client, tenant: str, csv: Path, tmp_path: Path
) -> None:
    upload_id = half_an_upload(client, tenant, csv)
    changed = tmp_path / "x.csv"
    changed.write_bytes(csv.read_bytes().replace(b"view", b"like", 1))
    with pytest.raises(ValueError, match="not the same content"):
        client.upload(tenant, "interactions", changed, upload_id=upload_id)
    assert client.get_upload(tenant, upload_id).state == upload_pb2.UPLOAD_STATE_OPEN
    assert client.upload(tenant, "interactions", csv, upload_id=upload_id).rows_received == 20_000


def test_an_upload_can_be_given_up_until_it_has_finished(
    client: headrace.Client, tenant: str, csv: Path
) -> None:
    upload_id = half_an_upload(client, tenant, csv)
    client.abort_upload(tenant, upload_id)
    client.abort_upload(tenant, upload_id)
    assert client.get_upload(tenant, upload_id).state == upload_pb2.UPLOAD_STATE_ABORTED
    with pytest.raises(errors.UploadClosedError):
        client.upload(tenant, "interactions", csv, upload_id=upload_id)
    finished = client.upload(tenant, "interactions", csv)
    with pytest.raises(errors.PreconditionError):
        client.abort_upload(tenant, finished.upload_id)
    with pytest.raises(errors.UploadNotFoundError):
        client.abort_upload(tenant, str(uuid.uuid4()))


async def test_the_aio_client_can_give_an_upload_up(
    server: Any, client: headrace.Client, tenant: str, csv: Path
) -> None:
    upload_id = await asyncio.to_thread(half_an_upload, client, tenant, csv)
    async with headrace.AsyncClient(server.address) as aclient:
        await aclient.abort_upload(tenant, upload_id)
        assert (await aclient.get_upload(tenant, upload_id)).state == upload_pb2.UPLOAD_STATE_ABORTED


def test_the_command_line_can_give_an_upload_up(
    server: Any, client: headrace.Client, tenant: str, csv: Path
) -> None:
    upload_id = half_an_upload(client, tenant, csv)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, arguments, env={"HEADRACE_GRPC_ADDRESS": server.address})

    assert "is aborted" in run("abort", upload_id, "--tenant", tenant).stdout
    assert "ABORTED" in run("status", upload_id, "--tenant", tenant).stdout
    assert run("abort", str(uuid.uuid4()), "--tenant", tenant).exit_code == 2


def test_the_command_line_takes_packed_files(server: Any, tenant: str, csv: Path, tmp_path: Path) -> None:
    packed = tmp_path / "x"
    packed.write_bytes(gzip.compress(csv.read_bytes()))
    result = CliRunner().invoke(
        app,
        ["upload", str(packed), "--tenant", tenant, "--type", "interactions", "--compression", "gzip"],
        env={"HEADRACE_GRPC_ADDRESS": server.address},
    )
    assert result.exit_code == 0, result.output
