"""Validate and ValidateSample: the same steps as an upload up to its report, without session or commit.

Parts go to a scratch folder, because duplicates across blocks are found from
them. The folder is deleted at the end, or after a crash at the next start.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

from google.rpc import status_pb2

from headrace.v1 import validation_pb2
from headrace_compute.findings import Findings
from headrace_compute.ingest.block import ingest_block
from headrace_compute.ingest.block_result import BlockResult
from headrace_compute.model import Block, StoreConfig, UploadSpec
from headrace_compute.objects.store import open_store
from headrace_compute.report import report_of
from headrace_server.rows.blocks import BlockQueue, PersistedBlock
from headrace_server.rows.duplicates import settle_duplicates
from headrace_server.rows.intake import CsvIntake, Intake, JsonLinesIntake, RowsIntake
from headrace_server.rows.objects import json_lines
from headrace_server.rpc import messages, requests
from headrace_server.rpc.bounds import MAX_SAMPLE_ROWS
from headrace_server.rpc.streams import RequestStream, ResponseQueue, serve_stream, unexpected
from headrace_server.services import Services

SCRATCH_LIFE_US = 86_400_000_000
"""A validation's scratch folder may be another server's, at work, until it is a day old."""

Requests = RequestStream[validation_pb2.ValidateRequest]
Responses = ResponseQueue[validation_pb2.ValidateResponse]


async def serve_validate(
    services: Services, messages: AsyncIterator[validation_pb2.ValidateRequest], address: str
) -> AsyncIterator[validation_pb2.ValidateResponse]:
    """Serves one Validate call: what goes back to the client; raises what the call ends with.

    Args:
        address: Where it came from, which stands for the tenant.
    """

    async def serve(requests: Requests, responses: Responses) -> None:
        services.shutdown.check()
        services.pool.quarantine.check(address)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("request") != "header":
            raise unexpected("header", first.WhichOneof("request") if first else "the end of the stream")
        async with services.uploads.enter_stream("", requests):
            stream = ValidateStream(services, first.header, responses, address)
            try:
                await stream.serve(requests)
            finally:
                await stream.close()

    def in_band(status: status_pb2.Status) -> validation_pb2.ValidateResponse:
        return validation_pb2.ValidateResponse(error=status)

    async for response in serve_stream(messages, serve, in_band, services.settings.idle_seconds):
        yield response


class ValidateStream:
    """One stream of rows to report on.

    Args:
        responses: Takes what goes back.
        address: Where the call came from.
    """

    def __init__(
        self, services: Services, header: validation_pb2.ValidateHeader, responses: Responses, address: str
    ) -> None:
        self._services = services
        self._responses = responses
        requests.check_enum("header.format", validation_pb2.ValidateFormat, header.format)
        self._format = header.format
        self._blocks: list[BlockResult] = []
        self._findings = Findings()
        skew = header.max_future_skew if header.HasField("max_future_skew") else None
        skew_us = requests.skew_us("header.max_future_skew", skew)
        spec = _scratch_spec(services.config, header.data_type, skew_us)
        self._spec = replace(spec, reject_unknown=header.reject_unknown_columns)
        self._executor = services.pool.executor(address, self._spec.upload_id)
        self._queue = BlockQueue(self._executor, self._keep, services.places)

    async def serve(self, requests: Requests) -> None:
        """Serves what follows the header, up to finish."""
        intake: Intake | None = None
        async for message in requests:
            match message.WhichOneof("request"):
                case "chunk":
                    intake = intake or self._intake(message.chunk)
                    feeding = intake.feed(intake.content(message.chunk))
                    del message  # As in uploads: not held while blocks of it wait.
                    await feeding
                case "finish":
                    intake = intake or self._intake(validation_pb2.ValidateChunk(data=b""))
                    await intake.finish()
                    settled = await settle_duplicates(
                        self._executor, self._spec, self._blocks, self._findings
                    )
                    report = messages.report_message(report_of(settled.findings))
                    self._responses.send(validation_pb2.ValidateResponse(report=report))
                    return
                case other:
                    raise unexpected("chunk or finish", other)
        raise unexpected("finish", "the end of the stream")

    async def close(self) -> None:
        """Waits for blocks in flight, which would write on, and deletes the scratch folder."""
        with suppress(Exception):
            await self._queue.drain()
        await self._queue.close()
        await _delete_scratch(self._services.config, self._spec)

    def _intake(self, chunk: validation_pb2.ValidateChunk) -> Intake:
        """The first chunk tells whether these are rows, the header what bytes are."""
        if chunk.WhichOneof("content") == "rows":
            return RowsIntake(self._queue, self._spec)
        block_bytes = self._services.block_bytes
        if self._format == validation_pb2.VALIDATE_FORMAT_JSON_LINES:
            return JsonLinesIntake(self._queue, self._spec, block_bytes)
        return CsvIntake(self._executor, self._queue, self._spec, block_bytes)

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
    services: Services, request: validation_pb2.ValidateSampleRequest, address: str
) -> validation_pb2.Report:
    """Reports on a few JSON objects, as one block.

    Args:
        address: Where the call came from, which stands for the tenant.
    """
    requests.check_row_count("sample_data", request.sample_data, MAX_SAMPLE_ROWS)
    spec = _scratch_spec(services.config, request.data_type, requests.DEFAULT_SKEW_US)
    lines = await services.packed(json_lines, request.sample_data)
    block = Block(
        index=0,
        format="json_lines",
        offset=0,
        end_offset=len(lines),
        first_row=0,
        rows=len(lines),
        first_line=0,
    )
    try:
        executor = services.pool.executor(address, spec.upload_id)
        result = await executor.run(ingest_block, spec, block, b"\n".join(lines), "0")
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
