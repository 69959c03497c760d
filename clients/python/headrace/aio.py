"""The asyncio client: the same methods as the sync client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import grpc
from google.protobuf.message import Message

from headrace import extras, request
from headrace.connection import TIMEOUT_S, ChannelOptions, Tls, connection
from headrace.encoding import Format
from headrace.errors import HeadraceError, from_rpc
from headrace.options import (
    FeaturesOptions,
    NegativesOptions,
    ReadOptions,
    TrainingOptions,
    UploadOptions,
    ValidateOptions,
)
from headrace.resume import AsyncRunner
from headrace.retry import Retry, Tries
from headrace.row import DataType, Row, to_interaction, to_item
from headrace.run import OnRunProgress, Result, RunReader
from headrace.source import ArrowData, Compression, File, Rows
from headrace.transfer import OnProgress
from headrace.v1 import (
    feature_pb2,
    health_pb2,
    ingest_pb2,
    run_pb2,
    statistics_pb2,
    table_pb2,
    upload_pb2,
    validation_pb2,
    verification_pb2,
)

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from headrace.read import TableReader
    from headrace.training import AsyncTrainingData

_Answer = TypeVar("_Answer")


class AsyncClient:
    """A connection to a Headrace server. Use it as an async context manager, or close it.

    It connects with the first call and belongs to the event loop it was made on.
    Every failed call raises a `HeadraceError`; `Client` documents arguments and errors.

    Example:
        async with headrace.AsyncClient("127.0.0.1:50051") as client:
            print((await client.health()).status)
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        credentials: Tls | grpc.ChannelCredentials | None = None,
        token: str | None = None,
        options: ChannelOptions = (),
        timeout: float | None = TIMEOUT_S,
        retry: Retry = Retry(),  # noqa: B008  # it is frozen
        interceptors: Sequence[Any] = (),
        compression: grpc.Compression | None = None,
    ) -> None:
        settings = connection(address, credentials, token, options, compression)
        self.address = settings.address
        self._timeout_s = timeout
        self._retry = retry
        self._channel = settings.async_channel(interceptors)
        self._stub = settings.async_stub(self._channel)
        self._runner = AsyncRunner(self._stub, self.address, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and every call on it.

        Example:
            await headrace.AsyncClient().close()
        """
        await self._channel.close(None)

    async def upload(
        self,
        tenant: str,
        data_type: DataType,
        file: File,
        *,
        format: Format | None = None,
        compression: Compression | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[UploadOptions],
    ) -> upload_pb2.UploadResult:
        """Uploads a file; its accepted rows are visible when this returns.

        Example:
            result = await client.upload("acme", "interactions", "interactions.csv", max_reject_ratio=0.5)
            print(result.rows_accepted, "accepted,", result.rows_rejected, "rejected")
        """
        upload, source = request.file_upload(tenant, data_type, file, format, compression, **options)
        return await self._runner.upload(upload, source, on_progress)

    async def upload_rows(
        self,
        tenant: str,
        data_type: DataType,
        rows: Rows,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[UploadOptions],
    ) -> upload_pb2.UploadResult:
        """Uploads rows, any number of them; otherwise as `upload`.

        Example:
            rows = ({"item_id": f"i{n}", "title": f"Chair {n}"} for n in range(1_000))
            await client.upload_rows("acme", "items", rows)
        """
        upload, source = request.rows_upload(tenant, data_type, rows, **options)
        return await self._runner.upload(upload, source, on_progress)

    async def upload_table(
        self,
        tenant: str,
        data_type: DataType,
        table: ArrowData,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[UploadOptions],
    ) -> upload_pb2.UploadResult:
        """Uploads a table or a frame as Arrow; otherwise as `upload`. Needs the extra `arrow`.

        Example:
            items = pyarrow.table({"item_id": ["i1", "i2"], "title": ["Chair", "Desk"]})
            await client.upload_table("acme", "items", items)
        """
        upload, source = request.table_upload(tenant, data_type, table, **options)
        return await self._runner.upload(upload, source, on_progress)

    async def get_upload(
        self, tenant: str, upload_id: str, *, timeout: float | None = None
    ) -> upload_pb2.GetUploadResponse:
        """Where an upload stands, or what it ended with.

        Example:
            found = await client.get_upload("acme", result.upload_id)
            print(headrace.UploadState(found.state).name, found.persisted_offset)
        """
        question = upload_pb2.GetUploadRequest(tenant_id=tenant, upload_id=upload_id)
        return await self._ask(self._stub.GetUpload, question, timeout)

    async def list_uploads(
        self, tenant: str, *, limit: int = 0, timeout: float | None = None
    ) -> AsyncIterator[upload_pb2.UploadSummary]:
        """The tenant's uploads, the newest first, page by page; `limit` 0 = all of them.

        Example:
            async for upload in client.list_uploads("acme", limit=10):
                print(upload.upload_id, headrace.UploadState(upload.state).name)
        """
        question, left = upload_pb2.ListUploadsRequest(tenant_id=tenant), limit
        while True:
            question.page_size = request.page_size(left)
            page = await self._ask(self._stub.ListUploads, question, timeout)
            for upload in page.uploads:
                yield upload
            left -= len(page.uploads)
            if not page.next_page_token or (limit and left <= 0):
                return
            question.page_token = page.next_page_token

    async def abort_upload(self, tenant: str, upload_id: str, *, timeout: float | None = None) -> None:
        """Gives an upload up: nothing of it is or will be visible. Repeating is no error.

        Example:
            try:
                await client.abort_upload("acme", result.upload_id)
            except headrace.UploadFinishedError:
                print("too late")
        """
        question = upload_pb2.AbortUploadRequest(tenant_id=tenant, upload_id=upload_id)
        await self._ask(self._stub.AbortUpload, question, timeout)

    async def list_rejects(
        self, tenant: str, upload_id: str, *, limit: int = 0
    ) -> AsyncIterator[validation_pb2.Reject]:
        """The rows an ended upload kept out, by row_number; `limit` 0 = all of them.

        Example:
            async for reject in client.list_rejects("acme", result.upload_id, limit=100):
                print(reject.line, reject.column, reject.code, reject.value)
        """
        question = upload_pb2.ListRejectsRequest(tenant_id=tenant, upload_id=upload_id, limit=limit)
        async with self._streaming(self._stub.ListRejects(question)) as responses:
            async for response in responses:
                for reject in response.rejects:
                    yield reject

    async def ingest_interactions(
        self, tenant: str, rows: Iterable[Row], *, request_id: str = "", timeout: float | None = None
    ) -> ingest_pb2.IngestInteractionsResponse:
        """Stores a small batch of interactions in one call; visible when this returns.

        Example:
            row = {"user_id": "u1", "item_id": "i1", "interaction_type": "view", "timestamp": "2026-01-31"}
            await client.ingest_interactions("acme", [row])
        """
        messages = [to_interaction(row, number) for number, row in enumerate(rows)]
        question = ingest_pb2.IngestInteractionsRequest(
            tenant_id=tenant, rows=messages, request_id=request.id_or_new(request_id)
        )
        return await self._ask(self._stub.IngestInteractions, question, timeout)

    async def ingest_items(
        self, tenant: str, rows: Iterable[Row], *, request_id: str = "", timeout: float | None = None
    ) -> ingest_pb2.IngestItemsResponse:
        """Stores a small batch of items in one call; otherwise as `ingest_interactions`.

        Example:
            await client.ingest_items("acme", [{"item_id": "i1", "title": "Chair", "price": 49.0}])
        """
        messages = [to_item(row, number) for number, row in enumerate(rows)]
        question = ingest_pb2.IngestItemsRequest(
            tenant_id=tenant, rows=messages, request_id=request.id_or_new(request_id)
        )
        return await self._ask(self._stub.IngestItems, question, timeout)

    async def ingest_rows(
        self,
        tenant: str,
        data_type: DataType,
        rows: Iterable[Mapping[str, Any]],
        *,
        request_id: str = "",
        timeout: float | None = None,
    ) -> ingest_pb2.IngestRowsResponse:
        """Stores a small batch of JSON objects, whatever types their values have: a bad one rejects its row.

        Example:
            row = {"item_id": "i1", "title": "Chair", "price": "?"}
            answer = await client.ingest_rows("acme", "items", [row])
            print([reject.message for reject in answer.row_errors.errors])
        """
        question = request.ingest_rows_request(tenant, data_type, rows, request_id)
        return await self._ask(self._stub.IngestRows, question, timeout)

    async def validate(
        self,
        data_type: DataType,
        file: File,
        *,
        format: Format | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[ValidateOptions],
    ) -> validation_pb2.Report:
        """Reports on a file exactly as `upload` would, and stores nothing.

        Example:
            report = await client.validate("interactions", "interactions.csv")
            for check in report.checks:
                print(check.column, check.code, check.failing_rows)
        """
        transfer, source = request.file_validation(data_type, file, format, **options)
        return await self._runner.validate(transfer, source, on_progress)

    async def validate_rows(
        self,
        data_type: DataType,
        rows: Rows,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[ValidateOptions],
    ) -> validation_pb2.Report:
        """Reports on rows exactly as `upload_rows` would, and stores nothing.

        Example:
            report = await client.validate_rows("items", [{"item_id": "i1", "title": "Chair"}])
        """
        transfer, source = request.rows_validation(data_type, rows, **options)
        return await self._runner.validate(transfer, source, on_progress)

    async def validate_sample(
        self, data_type: DataType, rows: Iterable[Mapping[str, Any]], *, timeout: float | None = None
    ) -> validation_pb2.Report:
        """Reports on 1 to 10,000 rows as JSON objects, whatever types their values have.

        Example:
            report = await client.validate_sample("items", [{"item_id": 7, "title": "Chair", "price": "?"}])
        """
        question = request.sample_request(data_type, rows)
        return (await self._ask(self._stub.ValidateSample, question, timeout)).report

    async def get_schema(
        self, data_type: DataType, *, timeout: float | None = None
    ) -> validation_pb2.GetSchemaResponse:
        """The data contract of a data type, as the validator itself holds it.

        Example:
            for column in (await client.get_schema("items")).columns:
                print(column.name, column.type, column.required)
        """
        question = validation_pb2.GetSchemaRequest(data_type=data_type)
        return await self._ask(self._stub.GetSchema, question, timeout)

    async def describe_features(
        self, windows: Sequence[int] = (), *, timeout: float | None = None
    ) -> feature_pb2.DescribeFeaturesResponse:
        """What each column of user_features and item_features means, with windows of so many days.

        Example:
            for feature in (await client.describe_features(windows=[14])).features:
                print(feature.table, feature.name, feature.meaning)
        """
        question = feature_pb2.DescribeFeaturesRequest(windows=windows)
        return await self._ask(self._stub.DescribeFeatures, question, timeout)

    async def feature_statistics(
        self,
        tenant: str,
        table: str,
        *,
        version: int | None = None,
        baseline_version: int | None = None,
        timeout: float | None = None,
    ) -> statistics_pb2.GetFeatureStatisticsResponse:
        """What the columns of a version of user_features or item_features are like, and their drift.

        Example:
            found = await client.feature_statistics("acme", "user_features")
            print({column.column: column.mean for column in found.columns})
        """
        question = statistics_pb2.GetFeatureStatisticsRequest(
            tenant_id=tenant, table=table, version=version, baseline_version=baseline_version
        )
        return await self._ask(self._stub.GetFeatureStatistics, question, timeout)

    async def compute_features(
        self,
        tenant: str,
        *,
        as_of: datetime | None = None,
        on_progress: OnRunProgress | None = None,
        **options: Unpack[FeaturesOptions],
    ) -> run_pb2.FeaturesResult:
        """Computes user_features and item_features anew.

        Example:
            result = await client.compute_features("acme", windows=[7, 30], half_life_days=14)
            print([(output.table, output.version) for output in result.outputs])
        """
        reader = RunReader(run_pb2.FeaturesResult, on_progress, request.run_backoff(options))
        question = request.features_request(tenant, as_of, **options)
        return await self._run(self._stub.ComputeFeatures, question, reader)

    async def sample_negatives(
        self,
        tenant: str,
        *,
        as_of: datetime | None = None,
        on_progress: OnRunProgress | None = None,
        **options: Unpack[NegativesOptions],
    ) -> run_pb2.NegativesResult:
        """Writes a training set of positives and sampled negatives; ends as `compute_features` does.

        Example:
            result = await client.sample_negatives("acme", seed=1, split={"fractions": [0.8, 0.9]})
            print(result.output.table, result.positives, result.negatives)
        """
        reader = RunReader(run_pb2.NegativesResult, on_progress, request.run_backoff(options))
        question = request.negatives_request(tenant, as_of, **options)
        return await self._run(self._stub.SampleNegatives, question, reader)

    async def runs(
        self, tenant: str, *, limit: int = 0, timeout: float | None = None
    ) -> AsyncIterator[run_pb2.Run]:
        """The tenant's runs, the newest first, page by page; `limit` 0 = all of them.

        Example:
            async for run in client.runs("acme", limit=10):
                print(run.request_id, run.kind, headrace.RunState(run.state).name)
        """
        question, left = run_pb2.ListRunsRequest(tenant_id=tenant), limit
        while True:
            question.page_size = request.page_size(left)
            page = await self._ask(self._stub.ListRuns, question, timeout)
            for run in page.runs:
                yield run
            left -= len(page.runs)
            if not page.next_page_token or (limit and left <= 0):
                return
            question.page_token = page.next_page_token

    async def get_run(self, tenant: str, request_id: str, *, timeout: float | None = None) -> run_pb2.Run:
        """Where a run with a request_id stands, or what it ended with.

        Example:
            request_id = str(uuid.uuid4())
            await client.compute_features("acme", request_id=request_id)
            assert (await client.get_run("acme", request_id)).state == headrace.RunState.DONE
        """
        question = run_pb2.GetRunRequest(tenant_id=tenant, request_id=request_id)
        return (await self._ask(self._stub.GetRun, question, timeout)).run

    async def cancel_run(self, tenant: str, request_id: str, *, timeout: float | None = None) -> None:
        """Stops a run, and waits for that: nothing of it is or will be visible. Repeating is no error.

        Example:
            try:
                await client.cancel_run("acme", request_id)
            except headrace.RunFinishedError:
                print("too late")
        """
        question = run_pb2.CancelRunRequest(tenant_id=tenant, request_id=request_id)
        await self._ask(self._stub.CancelRun, question, timeout)

    async def list_tables(self, tenant: str, *, timeout: float | None = None) -> Sequence[table_pb2.Table]:
        """The tables a tenant has, by name.

        Example:
            for table in await client.list_tables("acme"):
                print(table.name, table.version, table.rows, table.uri)
        """
        question, found = table_pb2.ListTablesRequest(tenant_id=tenant), list[table_pb2.Table]()
        while True:
            page = await self._ask(self._stub.ListTables, question, timeout)
            found += page.tables
            if not page.next_page_token:
                return found
            question.page_token = page.next_page_token

    async def read_table(self, tenant: str, table: str, **options: Unpack[ReadOptions]) -> "pa.Table":
        """One version of a table, or some of it, in memory; see `ReadOptions`. Needs the extra `arrow`.

        Example:
            items = await client.read_table("acme", "items", columns=["item_id", "title"], limit=10)
            print(items.num_rows)
        """
        from headrace.arrow import pa

        return pa.Table.from_batches([batch async for batch in self.read_batches(tenant, table, **options)])

    async def read_batches(
        self, tenant: str, table: str, **options: Unpack[ReadOptions]
    ) -> "AsyncIterator[pa.RecordBatch]":
        """The same batch by batch, at least one; memory does not grow with the table.

        Example:
            rows = sum([batch.num_rows async for batch in client.read_batches("acme", "interactions")])
        """
        from headrace.read import TableReader

        reader = TableReader(request.read_request(tenant, table, **options))
        async for batch in self._batches(reader):
            yield batch
        if reader.schema is None:
            yield reader.empty()

    async def read_pandas(self, tenant: str, table: str, **options: Unpack[ReadOptions]) -> "pd.DataFrame":
        """The same as a frame of pandas. Needs the extra `pandas`.

        Example:
            frame = await client.read_pandas("acme", "items")
        """
        extras.require("pandas")
        frame: pd.DataFrame = (await self.read_table(tenant, table, **options)).to_pandas()
        return frame

    async def read_polars(self, tenant: str, table: str, **options: Unpack[ReadOptions]) -> "pl.DataFrame":
        """The same as a frame of polars. Needs the extra `polars`.

        Example:
            frame = await client.read_polars("acme", "items")
        """
        frames: Any = extras.require("polars")
        frame: pl.DataFrame = frames.from_arrow(await self.read_table(tenant, table, **options))
        return frame

    async def training_data(
        self, tenant: str, dataset: str = "training_data", **options: Unpack[TrainingOptions]
    ) -> "AsyncTrainingData":
        """A training set as a trainer reads it: Arrow batches, epoch by epoch, shuffled by a seed.

        Example:
            data = await client.training_data("acme", split="train", shuffle_seed=1, batch_rows=1_000)
            for epoch in range(2):
                async for batch in data:  # a pyarrow.RecordBatch
                    print(epoch, batch.num_rows)
        """
        from headrace.training import AsyncTrainingData

        data = AsyncTrainingData(self._batches, tenant, dataset, **options)
        await data.open()
        return data

    async def verify(
        self, tenant: str, table: str, *, version: int | None = None, timeout: float | None = None
    ) -> verification_pb2.VerifyTableResponse:
        """Has a version of features or a training set derived again and compared with what is stored.

        Example:
            found = await client.verify("acme", "training_data")
            assert not found.HasField("difference")
        """
        question = verification_pb2.VerifyTableRequest(tenant_id=tenant, table=table, version=version)
        return await self._try(timeout, self._stub.VerifyTable, question)

    async def health(self, *, timeout: float | None = None) -> health_pb2.CheckHealthResponse:
        """How the server is.

        Example:
            assert (await client.health(timeout=5)).status == "healthy"
        """
        return await self._ask(self._stub.CheckHealth, health_pb2.CheckHealthRequest(), timeout)

    async def _run(self, method: Callable[..., Any], question: Message, reader: RunReader[Result]) -> Result:
        while True:
            try:
                async with self._streaming(method(question)) as responses:
                    async for response in responses:
                        reader.receive(response)
                return reader.outcome()
            except HeadraceError as error:
                await asyncio.sleep(reader.pause_s(error))

    def _batches(self, reader: "TableReader") -> "AsyncIterator[pa.RecordBatch]":
        # The server begins with this call, not with the first batch that is asked for.
        return self._resumed(reader, self._stub.ReadTable(reader.question()))

    async def _resumed(
        self, reader: "TableReader", call: grpc.aio.UnaryStreamCall[Any, table_pb2.ReadTableResponse]
    ) -> "AsyncIterator[pa.RecordBatch]":
        while True:
            try:
                async with self._streaming(call) as responses:
                    async for response in responses:
                        for batch in reader.receive(response):
                            yield batch
                return
            except HeadraceError as error:
                await asyncio.sleep(reader.pause_s(error))
            if reader.is_whole:
                return
            call = self._stub.ReadTable(reader.question())

    async def _ask(
        self, method: Callable[..., Awaitable[_Answer]], question: Message, timeout: float | None
    ) -> _Answer:
        return await self._try(self._timeout_s if timeout is None else timeout, method, question)

    async def _try(
        self, timeout_s: float | None, method: Callable[..., Awaitable[_Answer]], question: Message
    ) -> _Answer:
        tries = Tries(self._retry, timeout_s)
        while True:
            try:
                return await method(question, timeout=tries.left_s)
            except grpc.RpcError as error:
                failure = from_rpc(error, self.address)
                failure.__cause__ = error
            await asyncio.sleep(tries.pause_s(failure))

    @asynccontextmanager
    async def _streaming(
        self, call: grpc.aio.UnaryStreamCall[Any, _Answer]
    ) -> AsyncIterator[AsyncIterator[_Answer]]:
        # Leaving early, as on cancellation, cancels the call and with it the server's work.
        try:
            yield aiter(call)
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from error
        finally:
            call.cancel()
