"""The gRPC servicer: one thin method for each RPC, which delegates to the packages beside it."""

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf import json_format
from grpc import aio

from headrace.v1 import (
    feature_pb2,
    health_pb2,
    ingest_pb2,
    pipeline_service_pb2_grpc,
    run_pb2,
    statistics_pb2,
    table_pb2,
    upload_pb2,
    validation_pb2,
    verification_pb2,
)
from headrace_compute.errors import UploadNotFoundError
from headrace_compute.model import DataType
from headrace_compute.schemas.contract import describe_for
from headrace_server import listing, reading
from headrace_server.health import HealthMonitor, health_message
from headrace_server.ingest.service import SmallIngests
from headrace_server.rpc import messages, requests
from headrace_server.rpc.connections import address_of
from headrace_server.runs.features import FEATURES, describe_features
from headrace_server.runs.negatives import NEGATIVES
from headrace_server.runs.service import Runs
from headrace_server.runs.statistics import get_statistics
from headrace_server.services import Services
from headrace_server.uploads import lookup
from headrace_server.uploads.stream import serve_upload
from headrace_server.uploads.summaries import list_uploads
from headrace_server.validation import serve_validate, validate_sample

Context = aio.ServicerContext[Any, Any]


class PipelineServicer(pipeline_service_pb2_grpc.PipelineServiceServicer):
    """Answers the calls of headrace.v1.PipelineService; the contract is in protos/.

    Errors raised here and below become statuses in the interceptor.
    """

    def __init__(self, services: Services, small: SmallIngests, runs: Runs, health: HealthMonitor) -> None:
        self._services = services
        self._small = small
        self._runs = runs
        self._health = health
        self._lists = listing.TableLists(services.config, services.lists)
        self._reads = reading.TableReads(services)
        self._schemas: dict[DataType, validation_pb2.GetSchemaResponse] = {}

    async def Upload(
        self, request_iterator: AsyncIterator[upload_pb2.UploadRequest], context: Context
    ) -> AsyncIterator[upload_pb2.UploadResponse]:
        """Takes a stream of rows into a table."""
        async for response in serve_upload(self._services, request_iterator):
            yield response

    async def GetUpload(
        self, request: upload_pb2.GetUploadRequest, context: Context
    ) -> upload_pb2.GetUploadResponse:
        """Tells where an upload stands."""
        with self._services.small_calls.enter(request.tenant_id, context.peer()):
            try:
                return await lookup.get_upload(self._services, request)
            except UploadNotFoundError:
                return await self._small.get_upload(request)

    async def ListUploads(
        self, request: upload_pb2.ListUploadsRequest, context: Context
    ) -> upload_pb2.ListUploadsResponse:
        """Lists a tenant's uploads."""
        with self._services.questions.enter(request.tenant_id, context.peer()):
            return await list_uploads(self._services, request)

    async def AbortUpload(
        self, request: upload_pb2.AbortUploadRequest, context: Context
    ) -> upload_pb2.AbortUploadResponse:
        """Gives an upload up."""
        try:
            await lookup.abort_upload(self._services, request)
        except UploadNotFoundError:
            await self._small.abort_upload(request)
        return upload_pb2.AbortUploadResponse()

    async def ListRejects(
        self, request: upload_pb2.ListRejectsRequest, context: Context
    ) -> AsyncIterator[upload_pb2.ListRejectsResponse]:
        """Streams the rejects of an ended upload."""
        with self._services.reads.enter(request.tenant_id, context.peer()):
            try:
                async for response in lookup.list_rejects(self._services, request):
                    yield response
            except UploadNotFoundError:
                async for response in self._small.list_rejects(request):
                    yield response

    async def IngestInteractions(
        self, request: ingest_pb2.IngestInteractionsRequest, context: Context
    ) -> ingest_pb2.IngestInteractionsResponse:
        """Stores a small batch of interactions."""
        with self._services.small_calls.enter(request.tenant_id):
            result, errors = await self._small.ingest(
                request.tenant_id, "interactions", request.rows, request.request_id
            )
        return ingest_pb2.IngestInteractionsResponse(result=result, row_errors=errors)

    async def IngestItems(
        self, request: ingest_pb2.IngestItemsRequest, context: Context
    ) -> ingest_pb2.IngestItemsResponse:
        """Stores a small batch of items."""
        with self._services.small_calls.enter(request.tenant_id):
            result, errors = await self._small.ingest(
                request.tenant_id, "items", request.rows, request.request_id
            )
        return ingest_pb2.IngestItemsResponse(result=result, row_errors=errors)

    async def IngestRows(
        self, request: ingest_pb2.IngestRowsRequest, context: Context
    ) -> ingest_pb2.IngestRowsResponse:
        """Stores a small batch of JSON objects."""
        with self._services.small_calls.enter(request.tenant_id):
            result, errors = await self._small.ingest_objects(request)
        return ingest_pb2.IngestRowsResponse(result=result, row_errors=errors)

    async def Validate(
        self, request_iterator: AsyncIterator[validation_pb2.ValidateRequest], context: Context
    ) -> AsyncIterator[validation_pb2.ValidateResponse]:
        """Reports on a stream of rows, and stores nothing."""
        async for response in serve_validate(self._services, request_iterator, address_of(context.peer())):
            yield response

    async def ValidateSample(
        self, request: validation_pb2.ValidateSampleRequest, context: Context
    ) -> validation_pb2.ValidateSampleResponse:
        """Reports on a few JSON objects."""
        with self._services.questions.enter("", context.peer()):
            report = await validate_sample(self._services, request, address_of(context.peer()))
        return validation_pb2.ValidateSampleResponse(report=report)

    async def GetSchema(
        self, request: validation_pb2.GetSchemaRequest, context: Context
    ) -> validation_pb2.GetSchemaResponse:
        """Returns the data contract, as the validator holds it."""
        data_type = requests.check_data_type(request.data_type)
        if data_type not in self._schemas:
            # It never changes, and whoever asks must not have to wait for a worker.
            with self._services.questions.enter("", context.peer()):
                described = await self._services.pool.run(describe_for, data_type)
            self._schemas[data_type] = messages.schema_message(described)
        return self._schemas[data_type]

    async def ComputeFeatures(
        self, request: run_pb2.ComputeFeaturesRequest, context: Context
    ) -> AsyncIterator[run_pb2.ComputeFeaturesResponse]:
        """Computes user and item features."""
        async for response in self._runs.serve(FEATURES, request):
            yield response

    async def DescribeFeatures(
        self, request: feature_pb2.DescribeFeaturesRequest, context: Context
    ) -> feature_pb2.DescribeFeaturesResponse:
        """Tells what each feature means."""
        return describe_features(request)

    async def GetFeatureStatistics(
        self, request: statistics_pb2.GetFeatureStatisticsRequest, context: Context
    ) -> statistics_pb2.GetFeatureStatisticsResponse:
        """Tells what the columns of features are like."""
        with self._services.questions.enter(request.tenant_id, context.peer()):
            return await get_statistics(self._services, request)

    async def SampleNegatives(
        self, request: run_pb2.SampleNegativesRequest, context: Context
    ) -> AsyncIterator[run_pb2.SampleNegativesResponse]:
        """Writes a training set."""
        async for response in self._runs.serve(NEGATIVES, request):
            yield response

    async def CancelRun(
        self, request: run_pb2.CancelRunRequest, context: Context
    ) -> run_pb2.CancelRunResponse:
        """Stops a run."""
        with self._services.questions.enter(request.tenant_id, context.peer()):
            await self._runs.cancel(request)
        return run_pb2.CancelRunResponse()

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Context) -> run_pb2.GetRunResponse:
        """Tells where a run stands."""
        with self._services.questions.enter(request.tenant_id, context.peer()):
            return await self._runs.get(request)

    async def ListRuns(self, request: run_pb2.ListRunsRequest, context: Context) -> run_pb2.ListRunsResponse:
        """Lists a tenant's runs."""
        with self._services.questions.enter(request.tenant_id, context.peer()):
            return await self._runs.list(request)

    async def ListTables(
        self, request: table_pb2.ListTablesRequest, context: Context
    ) -> table_pb2.ListTablesResponse:
        """Lists a tenant's tables."""
        with self._services.questions.enter(request.tenant_id, context.peer()):
            return await self._lists.list(request)

    async def ReadTable(
        self, request: table_pb2.ReadTableRequest, context: Context
    ) -> AsyncIterator[table_pb2.ReadTableResponse]:
        """Streams rows of a table version."""
        with self._services.reads.enter(request.tenant_id, context.peer()):
            async for response in self._reads.read(request):
                yield response

    async def VerifyTable(
        self, request: verification_pb2.VerifyTableRequest, context: Context
    ) -> verification_pb2.VerifyTableResponse:
        """Derives a version again and compares."""
        return await self._runs.verify(request)

    async def CheckHealth(
        self, request: health_pb2.CheckHealthRequest, context: Context
    ) -> health_pb2.CheckHealthResponse:
        """Tells how the server is, from the newest background check."""
        return health_message(self._services.settings, self._health.current())


def health_json(services: Services, health: HealthMonitor) -> dict[str, Any]:
    """The body of /health: the same message as CheckHealth."""
    message = health_message(services.settings, health.current())
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
