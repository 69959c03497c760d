"""Uploads and validations, run to their end: an upload goes on by itself over as many streams as it takes."""

import asyncio
import time
from typing import TYPE_CHECKING

import grpc

from headrace.duplex import aexchange, exchange
from headrace.errors import HeadraceError, from_rpc
from headrace.source import Source
from headrace.transfer import OnProgress, ValidateTransfer
from headrace.upload import Upload
from headrace.v1 import upload_pb2, validation_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

if TYPE_CHECKING:
    # Only the types know it; at run time there is one stub for both.
    from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceAsyncStub


class Runner:
    """Runs streams on a sync stub.

    Args:
        stub: The server's methods.
        address: Its address, to be named when it cannot be reached.
        timeout_s: Seconds after which a question about an upload gives up.
    """

    def __init__(self, stub: PipelineServiceStub, address: str, timeout_s: float) -> None:
        self._stub = stub
        self._address = address
        self._timeout_s = timeout_s

    def upload(
        self, upload: Upload, source: Source, on_progress: OnProgress | None
    ) -> upload_pb2.UploadResult:
        """Uploads a source; resumes as often as it is worth it.

        Raises:
            HeadraceError: The upload failed, or patience came to its end.
            Exception: What reading the source or `on_progress` raised.
        """
        while True:
            transfer = upload.stream()
            exchange(self._stub.Upload, transfer, source, on_progress, self._address)
            if transfer.source_error is not None:
                raise transfer.source_error
            if transfer.answer is not None:
                if not transfer.is_ours:
                    source.check_whole(transfer.start())
                return transfer.answer
            if result := self._recover(upload, upload.ended(transfer), on_progress):
                return result

    def validate(
        self, transfer: ValidateTransfer, source: Source, on_progress: OnProgress | None
    ) -> validation_pb2.Report:
        """Validates a source; a validation that breaks is not resumed."""
        exchange(self._stub.Validate, transfer, source, on_progress, self._address)
        return transfer.outcome()

    def _recover(
        self, upload: Upload, error: HeadraceError, on_progress: OnProgress | None
    ) -> upload_pb2.UploadResult | None:
        """Waits until another stream may be tried; the result if it turns out that there is one."""
        while True:
            delay_s = upload.pause_s(error)
            if on_progress:
                on_progress(upload.progress)
            time.sleep(delay_s)
            if not upload.is_finish_sent:
                return None
            try:
                answer = self._stub.GetUpload(upload.question(), timeout=self._timeout_s)
            except grpc.RpcError as failed:
                error = from_rpc(failed, self._address)
                continue
            return upload.settle(answer)


class AsyncRunner:
    """Runs streams on an aio stub; otherwise as `Runner`."""

    def __init__(self, stub: "PipelineServiceAsyncStub", address: str, timeout_s: float) -> None:
        self._stub = stub
        self._address = address
        self._timeout_s = timeout_s

    async def upload(
        self, upload: Upload, source: Source, on_progress: OnProgress | None
    ) -> upload_pb2.UploadResult:
        """Uploads a source; resumes as often as it is worth it."""
        try:
            while True:
                transfer = upload.stream()
                await aexchange(self._stub.Upload, transfer, source, on_progress, self._address)
                if transfer.source_error is not None:
                    raise transfer.source_error
                if transfer.answer is not None:
                    if not transfer.is_ours:
                        await asyncio.to_thread(source.check_whole, transfer.start())
                    return transfer.answer
                if result := await self._recover(upload, upload.ended(transfer), on_progress):
                    return result
        finally:
            await source.aclose()

    async def validate(
        self, transfer: ValidateTransfer, source: Source, on_progress: OnProgress | None
    ) -> validation_pb2.Report:
        """Validates a source."""
        try:
            await aexchange(self._stub.Validate, transfer, source, on_progress, self._address)
        finally:
            await source.aclose()
        return transfer.outcome()

    async def _recover(
        self, upload: Upload, error: HeadraceError, on_progress: OnProgress | None
    ) -> upload_pb2.UploadResult | None:
        while True:
            delay_s = upload.pause_s(error)
            if on_progress:
                on_progress(upload.progress)
            await asyncio.sleep(delay_s)
            if not upload.is_finish_sent:
                return None
            try:
                answer = await self._stub.GetUpload(upload.question(), timeout=self._timeout_s)
            except grpc.RpcError as failed:
                error = from_rpc(failed, self._address)
                continue
            return upload.settle(answer)
