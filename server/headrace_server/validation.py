"""Validate and ValidateSample: the upload's way to a report, without session or commit.

Parts go to a scratch folder, because duplicates across blocks are found from
them. The folder is deleted at the end; what a crash left there, at the next start.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

from google.protobuf import json_format
from google.rpc import status_pb2

from headrace.v1 import validation_pb2
from headrace_compute.block_result import BlockResult
from headrace_compute.findings import Findings
from headrace_compute.model import Block, StoreConfig, UploadSpec
from headrace_compute.report import report_of
from headrace_compute.stages.ingest import ingest_block
from headrace_compute.storage.store import open_store
from headrace_server import messages, requests
from headrace_server.services import Services
from headrace_server.streams import Inbox, Outbox, converse, unexpected
from headrace_server.uploads.blocks import BlockQueue
from headrace_server.uploads.duplicates import settle_duplicates
from headrace_server.uploads.intake import CsvIntake, Intake, RowsIntake
from headrace_server.uploads.session import PersistedBlock

MAX_SAMPLE_ROWS = 10_000

SCRATCH_LIFE_US = 86_400_000_000
"""A validation's scratch folder may be another server's, at work, until it is a day old."""

Requests = Inbox[validation_pb2.ValidateRequest]
Responses = Outbox[validation_pb2.ValidateResponse]


async def serve_validate(
    services: Services, messages: AsyncIterator[validation_pb2.ValidateRequest]
) -> AsyncIterator[validation_pb2.ValidateResponse]:
    """Serves one Validate call: what goes back to the client; raises what the call ends with."""

    async def serve(requests: Requests, responses: Responses) -> None:
        services.shutdown.check()
        first = await anext(requests, None)
        if first is None or first.WhichOneof("request") != "header":
            raise unexpected("header", first.WhichOneof("request") if first else "the end of the stream")
        with services.uploads.enter(""):
            stream = ValidateStream(services, first.header, responses)
            try:
                await stream.serve(requests)
            finally:
                await stream.close()

    def in_band(status: status_pb2.Status) -> validation_pb2.ValidateResponse:
        return validation_pb2.ValidateResponse(error=status)

    async for response in converse(messages, serve, in_band, services.settings.idle_seconds):
        yield response


class ValidateStream:
    """One stream of rows to report on.

    Args:
        responses: Takes what goes back.
    """

    def __init__(
        self, services: Services, header: validation_pb2.ValidateHeader, responses: Responses
    ) -> None:
        self._services = services
        self._responses = responses
        self._reject_unknown = header.reject_unknown_columns
        self._blocks: list[BlockResult] = []
        self._findings = Findings()
        skew = header.max_future_skew if header.HasField("max_future_skew") else None
        skew_us = requests.skew_us("header.max_future_skew", skew)
        self._spec = _scratch_spec(services.config, header.data_type, skew_us)
        self._lane = services.pool.lane("", self._spec.upload_id)
        self._queue = BlockQueue(self._lane, self._keep, services.places)

    async def serve(self, requests: Requests) -> None:
        """Serves what follows the header, up to finish."""
        intake: Intake | None = None
        async for message in requests:
            match message.WhichOneof("request"):
                case "chunk":
                    intake = intake or self._intake(message.chunk)
                    await intake.feed(intake.content(message.chunk))
                case "finish":
                    intake = intake or self._intake(validation_pb2.ValidateChunk(data=b""))
                    await intake.finish()
                    settled = await settle_duplicates(self._lane, self._spec, self._blocks, self._findings)
                    report = messages.report_message(report_of(settled.findings))
                    self._responses.send(validation_pb2.ValidateResponse(report=report))
                    return
                case other:
                    raise unexpected("chunk or finish", other)
        raise unexpected("finish", "the end of the stream")

    async def close(self) -> None:
        """Gives up blocks that are still in flight, and deletes the scratch folder."""
        await self._queue.close()
        await _delete_scratch(self._services.config, self._spec)

    def _intake(self, chunk: validation_pb2.ValidateChunk) -> Intake:
        """The first chunk tells what kind of stream this is."""
        if chunk.WhichOneof("content") == "rows":
            return RowsIntake(self._queue, self._spec)
        return CsvIntake(
            self._lane,
            self._queue,
            self._spec,
            block_bytes=self._services.block_bytes,
            reject_unknown=self._reject_unknown,
        )

    async def _keep(self, block: PersistedBlock) -> None:
        self._blocks.append(block.result.counted)
        self._findings = self._findings.merge(block.result.findings)
        progress = validation_pb2.ValidateProgress(
            validated_offset=block.result.block.end_offset,
            rows_received=self._findings.received,
            rows_rejected=self._findings.rejected,
        )
        self._responses.send(validation_pb2.ValidateResponse(progress=progress), newest_of="progress")


async def validate_sample(
    services: Services, request: validation_pb2.ValidateSampleRequest
) -> validation_pb2.Report:
    """Reports on a few JSON objects, as one block."""
    requests.check_row_count("sample_data", request.sample_data, MAX_SAMPLE_ROWS)
    spec = _scratch_spec(services.config, request.data_type, requests.DEFAULT_SKEW_US)
    rows = await asyncio.to_thread(_sample_json, request)
    count = len(request.sample_data)
    block = Block(index=0, format="json", offset=0, end_offset=count, first_row=0, rows=count, first_line=0)
    try:
        result = await services.pool.run(ingest_block, spec, block, rows, "0")
    finally:
        await _delete_scratch(services.config, spec)
    return messages.report_message(report_of(result.findings))


async def sweep_scratch(config: StoreConfig) -> None:
    """Deletes what validations of a former server left behind; on a shared store, only what is old."""
    now_us = time.time_ns() // 1000
    latest_us = now_us - SCRATCH_LIFE_US if config.s3 else now_us
    await asyncio.to_thread(_sweep, config, latest_us)


def _sweep(config: StoreConfig, latest_us: int) -> None:
    store = open_store(config)
    root = _scratch_root(config)
    for name in store.children(root):
        started_us = name.partition("-")[0]
        if not started_us.isdigit() or int(started_us) < latest_us:
            store.delete_all(f"{root}{name}/")


def _sample_json(request: validation_pb2.ValidateSampleRequest) -> bytes:
    rows = [json_format.MessageToJson(row, indent=None) for row in request.sample_data]
    return f"[{','.join(rows)}]".encode()


def _scratch_root(config: StoreConfig) -> str:
    return f"{config.raw}/_headrace/scratch/"


def _scratch_spec(config: StoreConfig, data_type: str, skew_us: int) -> UploadSpec:
    """As for an upload that starts now, with every part in a scratch folder."""
    now_us = time.time_ns() // 1000
    call_id = uuid.uuid4().hex
    prefix = f"{_scratch_root(config)}{now_us}-{call_id}/"
    return UploadSpec(
        upload_id=call_id,
        data_type=requests.check_data_type(data_type),
        part_prefix=f"{prefix}data/",
        rejects_prefix=f"{prefix}rejects/",
        sidecar_prefix=f"{prefix}sidecars/",
        started_us=now_us,
        latest_us=now_us + skew_us,
    )


async def _delete_scratch(config: StoreConfig, spec: UploadSpec) -> None:
    prefix = spec.part_prefix.removesuffix("data/")
    await asyncio.to_thread(open_store(config).delete_all, prefix)
