"""The sync client."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from headrace.resume import Runner
from headrace.retry import Retry, Tries
from headrace.row import DataType, Row, to_interaction, to_item
from headrace.run import OnRunProgress, Result, RunReader
from headrace.source import ArrowData, Compression, File
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
    from headrace.training import TrainingData

_Answer = TypeVar("_Answer")


class Client:
    """A connection to a Headrace server. Use it as a context manager, or close it.

    It connects with the first call and may be shared between threads. Every
    failed call raises a `HeadraceError`.

    Args:
        address: `host:port` of the server, or another target of gRPC, such as `unix:/run/headrace.sock`.
            Default: HEADRACE_ADDRESS of the environment, else 127.0.0.1:50051.
        credentials: `Tls`, or what gRPC has. Default: TLS with the files that HEADRACE_CA_FILE and, for mTLS,
            HEADRACE_CERT_FILE and HEADRACE_KEY_FILE name; if none is named, no TLS.
        token: Each call carries it as `authorization: Bearer`. Default: HEADRACE_TOKEN, else none. Without
            TLS it is sent over loopback only.
        options: Of the gRPC channel, beside and before the SDK's own.
        timeout: Seconds after which a call without a stream gives up, all its tries together; None = never.
            Each such method takes a `timeout` of its own. Streams have none: uploads, runs and reads
            end when nothing has moved for their `patience_s`.
        retry: When calls without a stream are tried again; see `Retry`.
        interceptors: Of gRPC, for tracing and the like; the first one is called first.
        compression: Of what is sent. Default none.

    Raises:
        OSError: A file of certificates cannot be read.
        ValueError: The address has a scheme such as https, or the token would go unencrypted over a network.

    Example:
        with headrace.Client("127.0.0.1:50051") as client:
            print(client.health().status)
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
        self._channel = settings.channel(interceptors)
        self._stub = settings.stub(self._channel)
        self._runner = Runner(self._stub, self.address, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and every call on it.

        Example:
            headrace.Client().close()
        """
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
        **options: Unpack[UploadOptions],
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

        Example:
            result = client.upload("acme", "interactions", "interactions.csv", max_reject_ratio=0.5)
            print(result.rows_accepted, "accepted,", result.rows_rejected, "rejected")
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
        **options: Unpack[UploadOptions],
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

        Example:
            rows = ({"item_id": f"i{n}", "title": f"Chair {n}"} for n in range(1_000))
            client.upload_rows("acme", "items", rows)
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
        **options: Unpack[UploadOptions],
    ) -> upload_pb2.UploadResult:
        """Uploads a table or a frame as Arrow; otherwise as `upload`. Needs the extra `arrow`.

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
            MissingExtraError: There is no pyarrow.
            TypeError: The table does not speak Arrow.

        Example:
            items = pyarrow.table({"item_id": ["i1", "i2"], "title": ["Chair", "Desk"]})
            client.upload_table("acme", "items", items)
        """
        upload, source = request.table_upload(tenant, data_type, table, **options)
        return self._runner.upload(upload, source, on_progress)

    def get_upload(
        self, tenant: str, upload_id: str, *, timeout: float | None = None
    ) -> upload_pb2.GetUploadResponse:
        """Where an upload stands, or what it ended with.

        Raises:
            UploadNotFoundError: There is no such upload.

        Example:
            found = client.get_upload("acme", result.upload_id)
            print(headrace.UploadState(found.state).name, found.persisted_offset)
        """
        question = upload_pb2.GetUploadRequest(tenant_id=tenant, upload_id=upload_id)
        return self._ask(self._stub.GetUpload, question, timeout)

    def list_uploads(
        self, tenant: str, *, limit: int = 0, timeout: float | None = None
    ) -> Iterator[upload_pb2.UploadSummary]:
        """The tenant's uploads, the newest first, page by page; `limit` 0 = all of them.

        Small ingests are not among them: each is in the history of its table.

        Args:
            tenant: Whose.
            limit: At most this many.
            timeout: Seconds for each page.

        Example:
            for upload in client.list_uploads("acme", limit=10):
                print(upload.upload_id, headrace.UploadState(upload.state).name)
        """
        question, left = upload_pb2.ListUploadsRequest(tenant_id=tenant), limit
        while True:
            question.page_size = request.page_size(left)
            page = self._ask(self._stub.ListUploads, question, timeout)
            yield from page.uploads
            left -= len(page.uploads)
            if not page.next_page_token or (limit and left <= 0):
                return
            question.page_token = page.next_page_token

    def abort_upload(self, tenant: str, upload_id: str, *, timeout: float | None = None) -> None:
        """Gives an upload up: nothing of it is or will be visible. Repeating is no error.

        Raises:
            UploadFinishedError: It has finished already.
            UploadNotFoundError: There is no such upload.

        Example:
            try:
                client.abort_upload("acme", result.upload_id)
            except headrace.UploadFinishedError:
                print("too late")
        """
        question = upload_pb2.AbortUploadRequest(tenant_id=tenant, upload_id=upload_id)
        self._ask(self._stub.AbortUpload, question, timeout)

    def list_rejects(self, tenant: str, upload_id: str, *, limit: int = 0) -> Iterator[validation_pb2.Reject]:
        """The rows an ended upload kept out, by row_number; `limit` 0 = all of them.

        Example:
            for reject in client.list_rejects("acme", result.upload_id, limit=100):
                print(reject.line, reject.column, reject.code, reject.value)
        """
        question = upload_pb2.ListRejectsRequest(tenant_id=tenant, upload_id=upload_id, limit=limit)
        with self._streaming(self._stub.ListRejects(question)) as responses:
            for response in responses:
                yield from response.rejects

    def ingest_interactions(
        self, tenant: str, rows: Iterable[Row], *, request_id: str = "", timeout: float | None = None
    ) -> ingest_pb2.IngestInteractionsResponse:
        """Stores a small batch of interactions in one call; visible when this returns.

        Args:
            tenant: Whose table.
            rows: 1 to 10,000 mappings or `Interaction` messages.
            request_id: A UUID: a repeated call with it stores nothing twice. Default a new one.
            timeout: Seconds for all tries together.

        Raises:
            ValueError: A value is of a type that its column cannot carry; the
                message names row and column, and nothing was sent.

        Example:
            row = {"user_id": "u1", "item_id": "i1", "interaction_type": "view", "timestamp": "2026-01-31"}
            client.ingest_interactions("acme", [row])
        """
        messages = [to_interaction(row, number) for number, row in enumerate(rows)]
        question = ingest_pb2.IngestInteractionsRequest(
            tenant_id=tenant, rows=messages, request_id=request.id_or_new(request_id)
        )
        return self._ask(self._stub.IngestInteractions, question, timeout)

    def ingest_items(
        self, tenant: str, rows: Iterable[Row], *, request_id: str = "", timeout: float | None = None
    ) -> ingest_pb2.IngestItemsResponse:
        """Stores a small batch of items in one call; otherwise as `ingest_interactions`.

        Example:
            client.ingest_items("acme", [{"item_id": "i1", "title": "Chair", "price": 49.0}])
        """
        messages = [to_item(row, number) for number, row in enumerate(rows)]
        question = ingest_pb2.IngestItemsRequest(
            tenant_id=tenant, rows=messages, request_id=request.id_or_new(request_id)
        )
        return self._ask(self._stub.IngestItems, question, timeout)

    def ingest_rows(
        self,
        tenant: str,
        data_type: DataType,
        rows: Iterable[Mapping[str, Any]],
        *,
        request_id: str = "",
        timeout: float | None = None,
    ) -> ingest_pb2.IngestRowsResponse:
        """Stores a small batch of JSON objects, whatever types their values have: a bad one rejects its row.

        Args:
            tenant: Whose table.
            data_type: `interactions` or `items`.
            rows: 1 to 10,000 mappings of what JSON knows. Numbers are doubles on their way: an id of 2^53
                or more must be a string.
            request_id: As that of `ingest_interactions`.
            timeout: Seconds for all tries together.

        Raises:
            ValueError: JSON does not know a value; the message names row and column.

        Example:
            row = {"item_id": "i1", "title": "Chair", "price": "?"}
            answer = client.ingest_rows("acme", "items", [row])
            print([reject.message for reject in answer.row_errors.errors])
        """
        question = request.ingest_rows_request(tenant, data_type, rows, request_id)
        return self._ask(self._stub.IngestRows, question, timeout)

    def validate(
        self,
        data_type: DataType,
        file: File,
        *,
        format: Format | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[ValidateOptions],
    ) -> validation_pb2.Report:
        """Reports on a file exactly as `upload` would, and stores nothing.

        Args:
            data_type: `interactions` or `items`.
            file: A path, or a file open for reading bytes.
            format: csv or json_lines; default as for `upload`.
            on_progress: Called as validation goes on.
            options: See `ValidateOptions`.

        Example:
            report = client.validate("interactions", "interactions.csv")
            for check in report.checks:
                print(check.column, check.code, check.failing_rows)
        """
        transfer, source = request.file_validation(data_type, file, format, **options)
        return self._runner.validate(transfer, source, on_progress)

    def validate_rows(
        self,
        data_type: DataType,
        rows: Iterable[Row],
        *,
        on_progress: OnProgress | None = None,
        **options: Unpack[ValidateOptions],
    ) -> validation_pb2.Report:
        """Reports on rows exactly as `upload_rows` would, and stores nothing.

        Example:
            report = client.validate_rows("items", [{"item_id": "i1", "title": "Chair"}])
        """
        transfer, source = request.rows_validation(data_type, rows, **options)
        return self._runner.validate(transfer, source, on_progress)

    def validate_sample(
        self, data_type: DataType, rows: Iterable[Mapping[str, Any]], *, timeout: float | None = None
    ) -> validation_pb2.Report:
        """Reports on 1 to 10,000 rows as JSON objects, whatever types their values have.

        Example:
            report = client.validate_sample("items", [{"item_id": 7, "title": "Chair", "price": "?"}])
        """
        question = request.sample_request(data_type, rows)
        return self._ask(self._stub.ValidateSample, question, timeout).report

    def get_schema(
        self, data_type: DataType, *, timeout: float | None = None
    ) -> validation_pb2.GetSchemaResponse:
        """The data contract of a data type, as the validator itself holds it.

        Example:
            for column in client.get_schema("items").columns:
                print(column.name, column.type, column.required)
        """
        question = validation_pb2.GetSchemaRequest(data_type=data_type)
        return self._ask(self._stub.GetSchema, question, timeout)

    def describe_features(
        self, windows: Sequence[int] = (), *, timeout: float | None = None
    ) -> feature_pb2.DescribeFeaturesResponse:
        """What each column of user_features and item_features means, with windows of so many days.

        Example:
            for feature in client.describe_features(windows=[14]).features:
                print(feature.table, feature.name, feature.meaning)
        """
        question = feature_pb2.DescribeFeaturesRequest(windows=windows)
        return self._ask(self._stub.DescribeFeatures, question, timeout)

    def feature_statistics(
        self,
        tenant: str,
        table: str,
        *,
        version: int | None = None,
        baseline_version: int | None = None,
        timeout: float | None = None,
    ) -> statistics_pb2.GetFeatureStatisticsResponse:
        """What the columns of a version of user_features or item_features are like, and their drift.

        Args:
            tenant: Whose table.
            table: `user_features` or `item_features`.
            version: Default the newest.
            baseline_version: What it is compared with. Default the version before, if that has statistics.
            timeout: Seconds for all tries together.

        Example:
            found = client.feature_statistics("acme", "user_features")
            print({column.column: column.mean for column in found.columns})
        """
        question = statistics_pb2.GetFeatureStatisticsRequest(
            tenant_id=tenant, table=table, version=version, baseline_version=baseline_version
        )
        return self._ask(self._stub.GetFeatureStatistics, question, timeout)

    def compute_features(
        self,
        tenant: str,
        *,
        as_of: datetime | None = None,
        on_progress: OnRunProgress | None = None,
        **options: Unpack[FeaturesOptions],
    ) -> run_pb2.FeaturesResult:
        """Computes user_features and item_features anew.

        Leaving early, as by Ctrl-C, ends the run, unless it has a request_id: then only
        `cancel_run` does, and the call goes on by itself across restarts of the server.

        Args:
            tenant: Whose tables.
            as_of: Interactions before it count; naive = UTC. Default just after the newest.
            on_progress: Called with every progress.
            options: See `FeaturesOptions`.

        Raises:
            NoInteractionsError: There are none before as_of.

        Example:
            result = client.compute_features("acme", windows=[7, 30], half_life_days=14)
            print([(output.table, output.version) for output in result.outputs])
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
        **options: Unpack[NegativesOptions],
    ) -> run_pb2.NegativesResult:
        """Writes a training set of positives and sampled negatives; ends as `compute_features` does.

        Args:
            tenant: Whose tables.
            as_of: Interactions before it count; naive = UTC. Default just after the newest.
            on_progress: Called with every progress.
            options: See `NegativesOptions`.

        Raises:
            NoPositivesError: None are left to sample for.

        Example:
            result = client.sample_negatives("acme", seed=1, split={"fractions": [0.8, 0.9]})
            print(result.output.table, result.positives, result.negatives)
        """
        reader = RunReader(run_pb2.NegativesResult, on_progress, request.run_backoff(options))
        question = request.negatives_request(tenant, as_of, **options)
        return self._run(self._stub.SampleNegatives, question, reader)

    def runs(self, tenant: str, *, limit: int = 0, timeout: float | None = None) -> Iterator[run_pb2.Run]:
        """The tenant's runs, the newest first, page by page; `limit` 0 = all of them.

        Those with a request_id until a week after their end, unless the server says otherwise;
        of others those that are under way on the server.

        Args:
            tenant: Whose.
            limit: At most this many.
            timeout: Seconds for each page.

        Example:
            for run in client.runs("acme", limit=10):
                print(run.request_id, run.kind, headrace.RunState(run.state).name)
        """
        question, left = run_pb2.ListRunsRequest(tenant_id=tenant), limit
        while True:
            question.page_size = request.page_size(left)
            page = self._ask(self._stub.ListRuns, question, timeout)
            yield from page.runs
            left -= len(page.runs)
            if not page.next_page_token or (limit and left <= 0):
                return
            question.page_token = page.next_page_token

    def get_run(self, tenant: str, request_id: str, *, timeout: float | None = None) -> run_pb2.Run:
        """Where a run with a request_id stands, or what it ended with.

        Raises:
            RunNotFoundError: There is no such run.

        Example:
            request_id = str(uuid.uuid4())
            client.compute_features("acme", request_id=request_id)
            assert client.get_run("acme", request_id).state == headrace.RunState.DONE
        """
        question = run_pb2.GetRunRequest(tenant_id=tenant, request_id=request_id)
        return self._ask(self._stub.GetRun, question, timeout).run

    def cancel_run(self, tenant: str, request_id: str, *, timeout: float | None = None) -> None:
        """Stops a run, and waits for that: nothing of it is or will be visible. Repeating is no error.

        Raises:
            RunFinishedError: Its outcome is fixed.
            RunNotFoundError: There is no such run.

        Example:
            try:
                client.cancel_run("acme", request_id)
            except headrace.RunFinishedError:
                print("too late")
        """
        question = run_pb2.CancelRunRequest(tenant_id=tenant, request_id=request_id)
        self._ask(self._stub.CancelRun, question, timeout)

    def list_tables(self, tenant: str, *, timeout: float | None = None) -> Sequence[table_pb2.Table]:
        """The tables a tenant has, by name.

        Args:
            tenant: Whose.
            timeout: Seconds for each page.

        Example:
            for table in client.list_tables("acme"):
                print(table.name, table.version, table.rows, table.uri)
        """
        question, found = table_pb2.ListTablesRequest(tenant_id=tenant), list[table_pb2.Table]()
        while True:
            page = self._ask(self._stub.ListTables, question, timeout)
            found += page.tables
            if not page.next_page_token:
                return found
            question.page_token = page.next_page_token

    def read_table(self, tenant: str, table: str, **options: Unpack[ReadOptions]) -> "pa.Table":
        """One version of a table, or some of it, in memory; see `ReadOptions`. Needs the extra `arrow`.

        Raises:
            MissingExtraError: There is no pyarrow.
            TableNotFoundError: There is no such table.

        Example:
            items = client.read_table("acme", "items", columns=["item_id", "title"], limit=10)
            print(items.num_rows)
        """
        from headrace.arrow import pa

        return pa.Table.from_batches(list(self.read_batches(tenant, table, **options)))

    def read_batches(
        self, tenant: str, table: str, **options: Unpack[ReadOptions]
    ) -> "Iterator[pa.RecordBatch]":
        """The same batch by batch, at least one; memory does not grow with the table.

        A read that breaks goes on by itself behind the last row that came, in the same version.

        Example:
            rows = sum(batch.num_rows for batch in client.read_batches("acme", "interactions"))
        """
        from headrace.read import TableReader

        reader = TableReader(request.read_request(tenant, table, **options))
        yield from self._batches(reader)
        if reader.schema is None:
            yield reader.empty()

    def read_pandas(self, tenant: str, table: str, **options: Unpack[ReadOptions]) -> "pd.DataFrame":
        """The same as a frame of pandas. Needs the extra `pandas`.

        Example:
            frame = client.read_pandas("acme", "items")
        """
        extras.require("pandas")
        frame: pd.DataFrame = self.read_table(tenant, table, **options).to_pandas()
        return frame

    def read_polars(self, tenant: str, table: str, **options: Unpack[ReadOptions]) -> "pl.DataFrame":
        """The same as a frame of polars. Needs the extra `polars`.

        Example:
            frame = client.read_polars("acme", "items")
        """
        frames: Any = extras.require("polars")
        frame: pl.DataFrame = frames.from_arrow(self.read_table(tenant, table, **options))
        return frame

    def training_data(
        self, tenant: str, dataset: str = "training_data", **options: Unpack[TrainingOptions]
    ) -> "TrainingData":
        """A training set as a trainer reads it: Arrow batches, epoch by epoch, shuffled by a seed.

        It stops and goes on exactly (`state_dict`, `load_state_dict`), and several trainers share an
        epoch (`rank`, `ranks`). `headrace.torch` makes an IterableDataset of it. Needs the extra `arrow`.

        Args:
            tenant: Whose.
            dataset: Its name.
            options: See `TrainingOptions`.

        Raises:
            MissingExtraError: There is no pyarrow.
            TypeError: There is no such option.
            ValueError: An option makes no sense, or rows are not whole groups of group_rows.

        Example:
            data = client.training_data("acme", split="train", shuffle_seed=1, batch_rows=1_000)
            for epoch in range(2):
                for batch in data:  # a pyarrow.RecordBatch
                    print(epoch, batch.num_rows)
        """
        from headrace.training import TrainingData

        return TrainingData(self._batches, tenant, dataset, **options)

    def verify(
        self, tenant: str, table: str, *, version: int | None = None, timeout: float | None = None
    ) -> verification_pb2.VerifyTableResponse:
        """Has a version of features or a training set derived again and compared with what is stored.

        It has no `difference` if the rows are the same to the last bit. It takes as long as the run did, and
        its turn among runs; leaving early, as by Ctrl-C, ends it.

        Args:
            tenant: Whose table.
            table: `user_features`, `item_features` or a training set.
            version: Default the newest.
            timeout: Seconds after which it is given up. Default never, whatever the client's is.

        Raises:
            InputGoneError: What it was derived from is gone.
            NotDerivableError: The server cannot derive it.
            PartLostError: The version itself has lost a part.

        Example:
            found = client.verify("acme", "training_data")
            assert not found.HasField("difference")
        """
        question = verification_pb2.VerifyTableRequest(tenant_id=tenant, table=table, version=version)
        return self._try(timeout, self._stub.VerifyTable, question)

    def health(self, *, timeout: float | None = None) -> health_pb2.CheckHealthResponse:
        """How the server is.

        Example:
            assert client.health(timeout=5).status == "healthy"
        """
        return self._ask(self._stub.CheckHealth, health_pb2.CheckHealthRequest(), timeout)

    def _run(self, method: Callable[..., Any], question: Message, reader: RunReader[Result]) -> Result:
        while True:
            try:
                with self._streaming(method(question)) as responses:
                    for response in responses:
                        reader.receive(response)
                return reader.outcome()
            except HeadraceError as error:
                time.sleep(reader.pause_s(error))

    def _batches(self, reader: "TableReader") -> "Iterator[pa.RecordBatch]":
        # The server begins with this call, not with the first batch that is asked for.
        return self._resumed(reader, self._stub.ReadTable(reader.question()))

    def _resumed(
        self, reader: "TableReader", call: "grpc.CallIterator[table_pb2.ReadTableResponse]"
    ) -> "Iterator[pa.RecordBatch]":
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

    def _ask(self, method: Callable[..., _Answer], question: Message, timeout: float | None) -> _Answer:
        return self._try(self._timeout_s if timeout is None else timeout, method, question)

    def _try(self, timeout_s: float | None, method: Callable[..., _Answer], question: Message) -> _Answer:
        tries = Tries(self._retry, timeout_s)
        while True:
            try:
                return method(question, timeout=tries.left_s)
            except grpc.RpcError as error:
                failure = from_rpc(error, self.address)
                failure.__cause__ = error
            time.sleep(tries.pause_s(failure))

    @contextmanager
    def _streaming(self, call: "grpc.CallIterator[_Answer]") -> Iterator[Iterator[_Answer]]:
        # Leaving early, as on Ctrl-C, cancels the call and with it the server's work.
        try:
            yield iter(call)
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from error
        finally:
            call.cancel()  # type: ignore[no-untyped-call]  # the stubs forgot it
