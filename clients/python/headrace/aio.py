"""The asyncio client: the same methods as the sync client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Self, TypeVar, Unpack

import grpc
import pyarrow as pa
from google.protobuf.message import Message

from headrace import request
from headrace.connection import CHANNEL_OPTIONS, DEFAULT_ADDRESS, UNARY_TIMEOUT_S
from headrace.encoding import Format
from headrace.errors import HeadraceError, from_rpc
from headrace.read import TableReader
from headrace.resume import AsyncRunner
from headrace.row import DataType, Row, to_interaction, to_item
from headrace.run import OnRunProgress, Result, RunReader
from headrace.source import ArrowData, Compression, File, Rows
from headrace.training import AsyncTrainingData
from headrace.training.epochs import TrainingOptions
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
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

_Answer = TypeVar("_Answer")


class AsyncClient:
    """A connection to a Headrace server. Use it as an async context manager, or close it.

    It connects with the first call and belongs to the event loop it was made on.
    Every failed call raises a `HeadraceError`; `Client` documents arguments and errors.

    Args:
        address: `host:port` of the server.
        timeout_s: Seconds after which a call without a stream gives up.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = UNARY_TIMEOUT_S) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stub = PipelineServiceStub(self._channel)
        self._runner = AsyncRunner(self._stub, address, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and every call on it."""
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
        **options: Unpack[request.UploadOptions],
    ) -> upload_pb2.UploadResult:
        """Uploads a file; its accepted rows are visible when this returns.

        It goes on by itself across restarts of the server; cancelling ends it at once.
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
        **options: Unpack[request.UploadOptions],
    ) -> upload_pb2.UploadResult:
        """Uploads rows, any number of them, from an iterable or an async one; otherwise as `upload`."""
        upload, source = request.rows_upload(tenant, data_type, rows, **options)
        return await self._runner.upload(upload, source, on_progress)

    async def upload_table(
        self,
        tenant: str,
        data_type: DataType,
        table: ArrowData,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[request.UploadOptions],
    ) -> upload_pb2.UploadResult:
        """Uploads a table or a frame as Arrow; otherwise as `upload`."""
        upload, source = request.table_upload(tenant, data_type, table, **options)
        return await self._runner.upload(upload, source, on_progress)

    async def get_upload(self, tenant: str, upload_id: str) -> upload_pb2.GetUploadResponse:
        """Where an upload stands, or what it ended with."""
        question = upload_pb2.GetUploadRequest(tenant_id=tenant, upload_id=upload_id)
        return await self._ask(self._stub.GetUpload, question)

    async def abort_upload(self, tenant: str, upload_id: str) -> None:
        """Gives an upload up: nothing of it is or will be visible. Repeating is no error."""
        question = upload_pb2.AbortUploadRequest(tenant_id=tenant, upload_id=upload_id)
        await self._ask(self._stub.AbortUpload, question)

    async def list_rejects(
        self, tenant: str, upload_id: str, *, limit: int = 0
    ) -> AsyncIterator[validation_pb2.Reject]:
        """The rows an ended upload kept out, by row_number; `limit` 0 = all of them."""
        question = upload_pb2.ListRejectsRequest(tenant_id=tenant, upload_id=upload_id, limit=limit)
        async with self._streaming(self._stub.ListRejects(question)) as responses:
            async for response in responses:
                for reject in response.rejects:
                    yield reject

    async def ingest_interactions(
        self, tenant: str, rows: Iterable[Row], *, request_id: str = ""
    ) -> ingest_pb2.IngestInteractionsResponse:
        """Stores a small batch of interactions in one call; visible when this returns."""
        messages = [to_interaction(row, number) for number, row in enumerate(rows)]
        question = ingest_pb2.IngestInteractionsRequest(
            tenant_id=tenant, rows=messages, request_id=request_id
        )
        return await self._ask(self._stub.IngestInteractions, question)

    async def ingest_items(
        self, tenant: str, rows: Iterable[Row], *, request_id: str = ""
    ) -> ingest_pb2.IngestItemsResponse:
        """Stores a small batch of items in one call; otherwise as `ingest_interactions`."""
        messages = [to_item(row, number) for number, row in enumerate(rows)]
        question = ingest_pb2.IngestItemsRequest(tenant_id=tenant, rows=messages, request_id=request_id)
        return await self._ask(self._stub.IngestItems, question)

    async def validate(
        self,
        data_type: DataType,
        file: File,
        *,
        format: Format | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[request.ValidateOptions],
    ) -> validation_pb2.Report:
        """Reports on a file exactly as `upload` would, and stores nothing."""
        transfer, source = request.file_validation(data_type, file, format, **options)
        return await self._runner.validate(transfer, source, on_progress)

    async def validate_rows(
        self,
        data_type: DataType,
        rows: Rows,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[request.ValidateOptions],
    ) -> validation_pb2.Report:
        """Reports on rows exactly as `upload_rows` would, and stores nothing."""
        transfer, source = request.rows_validation(data_type, rows, **options)
        return await self._runner.validate(transfer, source, on_progress)

    async def validate_sample(
        self, data_type: DataType, rows: Iterable[Mapping[str, Any]]
    ) -> validation_pb2.Report:
        """Reports on 1 to 10,000 rows as JSON objects, whatever types their values have."""
        return (await self._ask(self._stub.ValidateSample, request.sample_request(data_type, rows))).report

    async def get_schema(self, data_type: DataType) -> validation_pb2.GetSchemaResponse:
        """The data contract of a data type, as the validator itself holds it."""
        return await self._ask(self._stub.GetSchema, validation_pb2.GetSchemaRequest(data_type=data_type))

    async def describe_features(self, windows: Sequence[int] = ()) -> feature_pb2.DescribeFeaturesResponse:
        """What each column of user_features and item_features means, with windows of so many days."""
        question = feature_pb2.DescribeFeaturesRequest(windows=windows)
        return await self._ask(self._stub.DescribeFeatures, question)

    async def feature_statistics(
        self, tenant: str, table: str, *, version: int | None = None, baseline_version: int | None = None
    ) -> statistics_pb2.GetFeatureStatisticsResponse:
        """What the columns of a version of user_features or item_features are like, and their drift."""
        question = statistics_pb2.GetFeatureStatisticsRequest(
            tenant_id=tenant, table=table, version=version, baseline_version=baseline_version
        )
        return await self._ask(self._stub.GetFeatureStatistics, question)

    async def compute_features(
        self,
        tenant: str,
        *,
        as_of: datetime | None = None,
        on_progress: OnRunProgress | None = None,
        **options: Unpack[request.FeaturesOptions],
    ) -> run_pb2.FeaturesResult:
        """Computes user_features and item_features anew."""
        reader = RunReader(run_pb2.FeaturesResult, on_progress, request.run_backoff(options))
        question = request.features_request(tenant, as_of, **options)
        return await self._run(self._stub.ComputeFeatures, question, reader)

    async def sample_negatives(
        self,
        tenant: str,
        *,
        as_of: datetime | None = None,
        on_progress: OnRunProgress | None = None,
        **options: Unpack[request.NegativesOptions],
    ) -> run_pb2.NegativesResult:
        """Writes a training set of positives and sampled negatives."""
        reader = RunReader(run_pb2.NegativesResult, on_progress, request.run_backoff(options))
        question = request.negatives_request(tenant, as_of, **options)
        return await self._run(self._stub.SampleNegatives, question, reader)

    async def runs(self, tenant: str, *, limit: int = 0) -> AsyncIterator[run_pb2.Run]:
        """The tenant's runs, the newest first; `limit` 0 = all of them."""
        question, left = run_pb2.ListRunsRequest(tenant_id=tenant, page_size=limit), limit
        while True:
            page = await self._ask(self._stub.ListRuns, question)
            for run in page.runs:
                yield run
                left -= 1
                if left == 0:
                    return
            if not page.next_page_token:
                return
            question.page_token = page.next_page_token

    async def get_run(self, tenant: str, request_id: str) -> run_pb2.Run:
        """Where a run with a request_id stands, or what it ended with."""
        question = run_pb2.GetRunRequest(tenant_id=tenant, request_id=request_id)
        return (await self._ask(self._stub.GetRun, question)).run

    async def cancel_run(self, tenant: str, request_id: str) -> None:
        """Stops a run, and waits for that: nothing of it is or will be visible. Repeating is no error."""
        question = run_pb2.CancelRunRequest(tenant_id=tenant, request_id=request_id)
        await self._ask(self._stub.CancelRun, question)

    async def list_tables(self, tenant: str) -> Sequence[table_pb2.Table]:
        """The tables a tenant has, by name."""
        question, found = table_pb2.ListTablesRequest(tenant_id=tenant), list[table_pb2.Table]()
        while True:
            page = await self._ask(self._stub.ListTables, question)
            found += page.tables
            if not page.next_page_token:
                return found
            question.page_token = page.next_page_token

    async def read_table(self, tenant: str, table: str, **options: Unpack[request.ReadOptions]) -> pa.Table:
        """One version of a table, or some of it, in memory; see `ReadOptions`."""
        return pa.Table.from_batches([batch async for batch in self.read_batches(tenant, table, **options)])

    async def read_batches(
        self, tenant: str, table: str, **options: Unpack[request.ReadOptions]
    ) -> AsyncIterator[pa.RecordBatch]:
        """The same batch by batch, at least one; memory does not grow with the table."""
        reader = TableReader(request.read_request(tenant, table, **options))
        async for batch in self._batches(reader):
            yield batch
        if reader.schema is None:
            yield reader.empty()

    async def training_data(
        self, tenant: str, dataset: str = "training_data", **options: Unpack[TrainingOptions]
    ) -> AsyncTrainingData:
        """A training set as a trainer reads it: Arrow batches, epoch by epoch, shuffled by a seed."""
        data = AsyncTrainingData(self._batches, tenant, dataset, **options)
        await data.open()
        return data

    async def verify(
        self, tenant: str, table: str, *, version: int | None = None, timeout_s: float | None = None
    ) -> verification_pb2.VerifyTableResponse:
        """Has a version derived again and compared; `timeout_s` None = however long that takes."""
        question = verification_pb2.VerifyTableRequest(tenant_id=tenant, table=table, version=version)
        return await self._within(timeout_s, self._stub.VerifyTable, question)

    async def health(self) -> health_pb2.CheckHealthResponse:
        """How the server is."""
        return await self._ask(self._stub.CheckHealth, health_pb2.CheckHealthRequest())

    async def _run(self, method: Callable[..., Any], question: Message, reader: RunReader[Result]) -> Result:
        while True:
            try:
                async with self._streaming(method(question)) as responses:
                    async for response in responses:
                        reader.receive(response)
                return reader.outcome()
            except HeadraceError as error:
                await asyncio.sleep(reader.pause_s(error))

    def _batches(self, reader: TableReader) -> AsyncIterator[pa.RecordBatch]:
        return self._resumed(reader, self._stub.ReadTable(reader.question()))

    async def _resumed(
        self, reader: TableReader, call: grpc.aio.UnaryStreamCall[Any, table_pb2.ReadTableResponse]
    ) -> AsyncIterator[pa.RecordBatch]:
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

    async def _ask(self, method: Callable[..., Awaitable[_Answer]], question: Message) -> _Answer:
        return await self._within(self._timeout_s, method, question)

    async def _within(
        self, timeout_s: float | None, method: Callable[..., Awaitable[_Answer]], question: Message
    ) -> _Answer:
        try:
            return await method(question, timeout=timeout_s)
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from error

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
