"""The sync client."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from headrace.resume import Runner
from headrace.row import DataType, Row, to_interaction, to_item
from headrace.run import OnRunProgress, Result, RunReader
from headrace.source import ArrowData, Compression, File
from headrace.training import TrainingData
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


class Client:
    """A connection to a Headrace server. Use it as a context manager, or close it.

    It connects with the first call and may be shared between threads. Every
    failed call raises a `HeadraceError`.

    Args:
        address: `host:port` of the server.
        timeout_s: Seconds after which a call without a stream gives up.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout_s: float = UNARY_TIMEOUT_S) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stub = PipelineServiceStub(self._channel)
        self._runner = Runner(self._stub, address, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and every call on it."""
        self._channel.close()

    def upload(
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

        Bad rows raise nothing: `outcome`, the counts and `report` tell of them.
        Should the connection or the server go away, the upload goes on by itself
        where the server stands, until nothing has moved for `patience_s`. Ctrl-C
        ends it at once.

        Args:
            tenant: Whose table.
            data_type: `interactions` or `items`.
            file: A path, or a file open for reading bytes, such as a pipe. A
                file at a path is read again where needed and must not change
                meanwhile; of an open one at most about 64 MiB are kept.
            format: Default by the file's name: .csv; .jsonl and .ndjson are JSON
                lines (one object a line); .parquet, .parq and .pq; .arrow, .arrows
                and .feather are Arrow IPC. Under another name, by the first bytes
                of a file at a path; what these do not tell is CSV.
            compression: Default by the file's name, .gz or .zst, or by its first bytes.
            on_progress: Called with every ack, and with every interruption.
            options: See `UploadOptions`.

        Raises:
            BadDataError: The file cannot be read as rows at all.
            UnavailableError: The server stayed away; `metadata` has `upload_id`
                and `persisted_offset`, and giving the id again goes on there.
            FencedError: Another client goes on with the same upload.
            HeadraceError: The call failed otherwise.
            OSError: The file cannot be read.
            ValueError: The file is not the one that `upload_id` was begun with.
        """
        upload, source = request.file_upload(tenant, data_type, file, format, compression, **options)
        return self._runner.upload(upload, source, on_progress)

    def upload_rows(
        self,
        tenant: str,
        data_type: DataType,
        rows: Iterable[Row],
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[request.UploadOptions],
    ) -> upload_pb2.UploadResult:
        """Uploads rows, any number of them; otherwise as `upload`.

        Args:
            tenant: Whose table.
            data_type: `interactions` or `items`.
            rows: Mappings from column to value, or `Interaction` and `Item`
                messages. They are asked for once; to go on with the `upload_id`
                of an earlier call, give the same rows from the first one on.
            on_progress: Called as for `upload`; offsets count rows.
            options: See `UploadOptions`.

        Raises:
            ValueError: A value is of a type that its column cannot carry; nothing
                becomes visible.
        """
        upload, source = request.rows_upload(tenant, data_type, rows, **options)
        return self._runner.upload(upload, source, on_progress)

    def upload_table(
        self,
        tenant: str,
        data_type: DataType,
        table: ArrowData,
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[request.UploadOptions],
    ) -> upload_pb2.UploadResult:
        """Uploads a table or a frame as Arrow; otherwise as `upload`.

        Args:
            tenant: Whose table.
            data_type: `interactions` or `items`.
            table: A `pyarrow.Table`, `RecordBatchReader` or `RecordBatch`, a
                frame of pandas or polars, or whatever else has
                `__arrow_c_stream__`. A reader is read once, batch by batch. To go
                on with the `upload_id` of an earlier call, give equal batches.
            on_progress: Called as for `upload`; offsets count encoded bytes.
            options: See `UploadOptions`.

        Raises:
            TypeError: The table does not speak Arrow.
        """
        upload, source = request.table_upload(tenant, data_type, table, **options)
        return self._runner.upload(upload, source, on_progress)

    def get_upload(self, tenant: str, upload_id: str) -> upload_pb2.GetUploadResponse:
        """Where an upload stands, or what it ended with."""
        question = upload_pb2.GetUploadRequest(tenant_id=tenant, upload_id=upload_id)
        return self._ask(self._stub.GetUpload, question)

    def abort_upload(self, tenant: str, upload_id: str) -> None:
        """Gives an upload up: nothing of it is or will be visible. Repeating is no error.

        Raises:
            PreconditionError: It has finished already.
            UploadNotFoundError: There is no such upload.
        """
        question = upload_pb2.AbortUploadRequest(tenant_id=tenant, upload_id=upload_id)
        self._ask(self._stub.AbortUpload, question)

    def list_rejects(self, tenant: str, upload_id: str, *, limit: int = 0) -> Iterator[validation_pb2.Reject]:
        """The rows an ended upload kept out, by row_number; `limit` 0 = all of them."""
        question = upload_pb2.ListRejectsRequest(tenant_id=tenant, upload_id=upload_id, limit=limit)
        with self._streaming(self._stub.ListRejects(question)) as responses:
            for response in responses:
                yield from response.rejects

    def ingest_interactions(
        self, tenant: str, rows: Iterable[Row], *, request_id: str = ""
    ) -> ingest_pb2.IngestInteractionsResponse:
        """Stores a small batch of interactions in one call; visible when this returns.

        Args:
            tenant: Whose table.
            rows: 1 to 10,000 mappings or `Interaction` messages.
            request_id: A UUID: a repeated call with it stores nothing twice.

        Raises:
            ValueError: A value is of a type that its column cannot carry; the
                message names row and column, and nothing was sent.
        """
        messages = [to_interaction(row, number) for number, row in enumerate(rows)]
        question = ingest_pb2.IngestInteractionsRequest(
            tenant_id=tenant, rows=messages, request_id=request_id
        )
        return self._ask(self._stub.IngestInteractions, question)

    def ingest_items(
        self, tenant: str, rows: Iterable[Row], *, request_id: str = ""
    ) -> ingest_pb2.IngestItemsResponse:
        """Stores a small batch of items in one call; otherwise as `ingest_interactions`."""
        messages = [to_item(row, number) for number, row in enumerate(rows)]
        question = ingest_pb2.IngestItemsRequest(tenant_id=tenant, rows=messages, request_id=request_id)
        return self._ask(self._stub.IngestItems, question)

    def validate(
        self,
        data_type: DataType,
        file: File,
        *,
        format: Format | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[request.ValidateOptions],
    ) -> validation_pb2.Report:
        """Reports on a file exactly as `upload` would, and stores nothing.

        Args:
            data_type: `interactions` or `items`.
            file: A path, or a file open for reading bytes.
            format: csv or json_lines; default as for `upload`.
            on_progress: Called as validation goes on.
            options: See `ValidateOptions`.
        """
        transfer, source = request.file_validation(data_type, file, format, **options)
        return self._runner.validate(transfer, source, on_progress)

    def validate_rows(
        self,
        data_type: DataType,
        rows: Iterable[Row],
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[request.ValidateOptions],
    ) -> validation_pb2.Report:
        """Reports on rows exactly as `upload_rows` would, and stores nothing."""
        transfer, source = request.rows_validation(data_type, rows, **options)
        return self._runner.validate(transfer, source, on_progress)

    def validate_sample(
        self, data_type: DataType, rows: Iterable[Mapping[str, Any]]
    ) -> validation_pb2.Report:
        """Reports on 1 to 10,000 rows as JSON objects, whatever types their values have."""
        return self._ask(self._stub.ValidateSample, request.sample_request(data_type, rows)).report

    def get_schema(self, data_type: DataType) -> validation_pb2.GetSchemaResponse:
        """The data contract of a data type, as the validator itself holds it."""
        return self._ask(self._stub.GetSchema, validation_pb2.GetSchemaRequest(data_type=data_type))

    def describe_features(self, windows: Sequence[int] = ()) -> feature_pb2.DescribeFeaturesResponse:
        """What each column of user_features and item_features means, with windows of so many days."""
        question = feature_pb2.DescribeFeaturesRequest(windows=windows)
        return self._ask(self._stub.DescribeFeatures, question)

    def feature_statistics(
        self, tenant: str, table: str, *, version: int | None = None, baseline_version: int | None = None
    ) -> statistics_pb2.GetFeatureStatisticsResponse:
        """What the columns of a version of user_features or item_features are like, and their drift.

        Args:
            tenant: Whose table.
            table: `user_features` or `item_features`.
            version: Default the newest.
            baseline_version: What it is compared with. Default the version before, if that has statistics.
        """
        question = statistics_pb2.GetFeatureStatisticsRequest(
            tenant_id=tenant, table=table, version=version, baseline_version=baseline_version
        )
        return self._ask(self._stub.GetFeatureStatistics, question)

    def compute_features(
        self,
        tenant: str,
        *,
        as_of: datetime | None = None,
        on_progress: OnRunProgress | None = None,
        **options: Unpack[request.FeaturesOptions],
    ) -> run_pb2.FeaturesResult:
        """Computes user_features and item_features anew.

        Leaving early, as by Ctrl-C, ends the run, unless it has a request_id: then only
        `cancel_run` does, and the call goes on by itself across restarts of the server.

        Args:
            tenant: Whose tables.
            as_of: Interactions before it count; naive = UTC. Default just after the newest.
            on_progress: Called with every progress.
            options: See `FeaturesOptions`.
        """
        reader = RunReader(run_pb2.FeaturesResult, on_progress, request.run_backoff(options))
        question = request.features_request(tenant, as_of, **options)
        return self._run(self._stub.ComputeFeatures, question, reader)

    def sample_negatives(
        self,
        tenant: str,
        *,
        as_of: datetime | None = None,
        on_progress: OnRunProgress | None = None,
        **options: Unpack[request.NegativesOptions],
    ) -> run_pb2.NegativesResult:
        """Writes a training set of positives and sampled negatives; ends as `compute_features` does.

        Args:
            tenant: Whose tables.
            as_of: Interactions before it count; naive = UTC. Default just after the newest.
            on_progress: Called with every progress.
            options: See `NegativesOptions`.
        """
        reader = RunReader(run_pb2.NegativesResult, on_progress, request.run_backoff(options))
        question = request.negatives_request(tenant, as_of, **options)
        return self._run(self._stub.SampleNegatives, question, reader)

    def runs(self, tenant: str, *, limit: int = 0) -> Iterator[run_pb2.Run]:
        """The tenant's runs, the newest first; `limit` 0 = all of them.

        Those with a request_id until a week after their end, unless the server says otherwise;
        of others those that are under way on the server.
        """
        question, left = run_pb2.ListRunsRequest(tenant_id=tenant, page_size=limit), limit
        while True:
            page = self._ask(self._stub.ListRuns, question)
            for run in page.runs:
                yield run
                left -= 1
                if left == 0:
                    return
            if not page.next_page_token:
                return
            question.page_token = page.next_page_token

    def get_run(self, tenant: str, request_id: str) -> run_pb2.Run:
        """Where a run with a request_id stands, or what it ended with."""
        question = run_pb2.GetRunRequest(tenant_id=tenant, request_id=request_id)
        return self._ask(self._stub.GetRun, question).run

    def cancel_run(self, tenant: str, request_id: str) -> None:
        """Stops a run, and waits for that: nothing of it is or will be visible. Repeating is no error.

        Raises:
            RunFinishedError: Its outcome is fixed.
            RunNotFoundError: There is no such run.
        """
        question = run_pb2.CancelRunRequest(tenant_id=tenant, request_id=request_id)
        self._ask(self._stub.CancelRun, question)

    def list_tables(self, tenant: str) -> Sequence[table_pb2.Table]:
        """The tables a tenant has, by name."""
        return self._ask(self._stub.ListTables, table_pb2.ListTablesRequest(tenant_id=tenant)).tables

    def read_table(self, tenant: str, table: str, **options: Unpack[request.ReadOptions]) -> pa.Table:
        """One version of a table, or some of it, in memory; see `ReadOptions`."""
        return pa.Table.from_batches(list(self.read_batches(tenant, table, **options)))

    def read_batches(
        self, tenant: str, table: str, **options: Unpack[request.ReadOptions]
    ) -> Iterator[pa.RecordBatch]:
        """The same batch by batch, at least one; memory does not grow with the table.

        A read that breaks goes on by itself behind the last row that came, in the same version.
        """
        reader = TableReader(request.read_request(tenant, table, **options))
        yield from self._batches(reader)
        if reader.schema is None:
            yield reader.empty()

    def training_data(
        self, tenant: str, dataset: str = "training_data", **options: Unpack[TrainingOptions]
    ) -> TrainingData:
        """A training set as a trainer reads it: Arrow batches, epoch by epoch, shuffled by a seed.

            data = client.training_data("acme", split="train", shuffle_seed=1, batch_rows=1_000)
            for epoch in range(5):
                for batch in data:  # a pyarrow.RecordBatch
                    ...

        It stops and goes on exactly (`state_dict`, `load_state_dict`), and several trainers share an
        epoch (`rank`, `ranks`). `headrace.torch` makes an IterableDataset of it.

        Args:
            tenant: Whose.
            dataset: Its name.
            options: See `TrainingOptions`.

        Raises:
            TypeError: There is no such option.
            ValueError: An option makes no sense, or rows are not whole groups of group_rows.
        """
        return TrainingData(self._batches, tenant, dataset, **options)

    def verify(
        self, tenant: str, table: str, *, version: int | None = None, timeout_s: float | None = None
    ) -> verification_pb2.VerifyTableResponse:
        """Has a version of features or a training set derived again and compared with what is stored.

        It has no `difference` if the rows are the same to the last bit. It takes as long as the run did, and
        its turn among runs; leaving early, as by Ctrl-C, ends it.

        Args:
            tenant: Whose table.
            table: `user_features`, `item_features` or a training set.
            version: Default the newest.
            timeout_s: Seconds after which it is given up. Default never.

        Raises:
            InputGoneError: What it was derived from is gone.
            NotDerivableError: The server cannot derive it.
            PartLostError: The version itself has lost a part.
        """
        question = verification_pb2.VerifyTableRequest(tenant_id=tenant, table=table, version=version)
        return self._within(timeout_s, self._stub.VerifyTable, question)

    def health(self) -> health_pb2.CheckHealthResponse:
        """How the server is."""
        return self._ask(self._stub.CheckHealth, health_pb2.CheckHealthRequest())

    def _run(self, method: Callable[..., Any], question: Message, reader: RunReader[Result]) -> Result:
        while True:
            try:
                with self._streaming(method(question)) as responses:
                    for response in responses:
                        reader.receive(response)
                return reader.outcome()
            except HeadraceError as error:
                time.sleep(reader.pause_s(error))

    def _batches(self, reader: TableReader) -> Iterator[pa.RecordBatch]:
        # The server begins with this call, not with the first batch that is asked for.
        return self._resumed(reader, self._stub.ReadTable(reader.question()))

    def _resumed(
        self, reader: TableReader, call: "grpc.CallIterator[table_pb2.ReadTableResponse]"
    ) -> Iterator[pa.RecordBatch]:
        while True:
            try:
                with self._streaming(call) as responses:
                    for response in responses:
                        yield from reader.receive(response)
                return
            except HeadraceError as error:
                time.sleep(reader.pause_s(error))
            if reader.is_whole:
                return
            call = self._stub.ReadTable(reader.question())

    def _ask(self, method: Callable[..., _Answer], question: Message) -> _Answer:
        return self._within(self._timeout_s, method, question)

    def _within(self, timeout_s: float | None, method: Callable[..., _Answer], question: Message) -> _Answer:
        try:
            return method(question, timeout=timeout_s)
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from error

    @contextmanager
    def _streaming(self, call: "grpc.CallIterator[_Answer]") -> Iterator[Iterator[_Answer]]:
        # Leaving early, as on Ctrl-C, cancels the call and with it the server's work.
        try:
            yield iter(call)
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from error
        finally:
            call.cancel()  # type: ignore[no-untyped-call]  # the stubs forgot it
