"""Runs uploads and validations to completion; an upload resumes over as many streams as it takes.

What is tried, and in which order, is defined once, in `_script`; the sync and the asyncio runner execute it.
"""

import asyncio
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from headrace.duplex import aexchange, exchange
from headrace.errors import HeadraceError, from_rpc
from headrace.source import Source, Start
from headrace.transfer import OnProgress, ValidateTransfer
from headrace.upload import Upload, UploadTransfer
from headrace.v1 import upload_pb2, validation_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

if TYPE_CHECKING:
    # Only the types know it; at run time there is one stub for both.
    from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceAsyncStub


@dataclass(frozen=True)
class _Stream:
    """Runs one stream of the upload to its end."""

    transfer: UploadTransfer


@dataclass(frozen=True)
class _CheckWhole:
    """Compares the source with the upload that had been finished before."""

    start: Start


@dataclass(frozen=True)
class _Pause:
    """Lets time pass."""

    delay_s: float


@dataclass(frozen=True)
class _Ask:
    """Asks where the upload stands; answered with the answer, or with the error of asking."""

    question: upload_pb2.GetUploadRequest


_Script: TypeAlias = Generator[_Stream | _CheckWhole | _Pause | _Ask, Any, upload_pb2.UploadResult]


def _script(upload: Upload, on_progress: OnProgress | None) -> _Script:
    """An upload, step by step, to its result."""
    while True:
        transfer = upload.stream()
        yield _Stream(transfer)
        if transfer.source_error is not None:
            raise transfer.source_error
        if transfer.answer is not None:
            if not transfer.is_ours:
                yield _CheckWhole(transfer.start())
            return transfer.answer
        error: HeadraceError | None = upload.ended(transfer)
        while error is not None:
            delay_s = upload.pause_s(error)
            if on_progress:
                on_progress(upload.progress)
            yield _Pause(delay_s)
            if not upload.is_finish_sent:
                break
            # Another stream is tried once it is known that there is no result.
            answer: upload_pb2.GetUploadResponse | HeadraceError = yield _Ask(upload.question())
            error = answer if isinstance(answer, HeadraceError) else None
            if not isinstance(answer, HeadraceError) and (result := upload.settle(answer)) is not None:
                return result


class Runner:
    """Runs streams on a sync stub.

    Args:
        stub: The server's methods.
        address: Its address, to be named when it cannot be reached.
        timeout_s: Seconds after which a question about an upload gives up; None = never.
    """

    def __init__(self, stub: PipelineServiceStub, address: str, timeout_s: float | None) -> None:
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
        script = _script(upload, on_progress)
        answer: upload_pb2.GetUploadResponse | HeadraceError | None = None
        while True:
            try:
                step = script.send(answer)
            except StopIteration as end:
                return _result(end)
            answer = None
            match step:
                case _Stream():
                    exchange(self._stub.Upload, step.transfer, source, on_progress, self._address)
                case _CheckWhole():
                    source.check_whole(step.start)
                case _Pause():
                    time.sleep(step.delay_s)
                case _Ask():
                    answer = self._ask(step.question)

    def validate(
        self, transfer: ValidateTransfer, source: Source, on_progress: OnProgress | None
    ) -> validation_pb2.Report:
        """Validates a source; a validation that breaks is not resumed."""
        exchange(self._stub.Validate, transfer, source, on_progress, self._address)
        return transfer.outcome()

    def _ask(self, question: upload_pb2.GetUploadRequest) -> upload_pb2.GetUploadResponse | HeadraceError:
        try:
            return self._stub.GetUpload(question, timeout=self._timeout_s)
        except grpc.RpcError as failed:
            return from_rpc(failed, self._address)


class AsyncRunner:
    """Runs streams on an aio stub; otherwise as `Runner`."""

    def __init__(self, stub: "PipelineServiceAsyncStub", address: str, timeout_s: float | None) -> None:
        self._stub = stub
        self._address = address
        self._timeout_s = timeout_s

    async def upload(
        self, upload: Upload, source: Source, on_progress: OnProgress | None
    ) -> upload_pb2.UploadResult:
        """Uploads a source; resumes as often as it is worth it."""
        script = _script(upload, on_progress)
        answer: upload_pb2.GetUploadResponse | HeadraceError | None = None
        try:
            while True:
                try:
                    step = script.send(answer)
                except StopIteration as end:
                    return _result(end)
                answer = None
                match step:
                    case _Stream():
                        await aexchange(self._stub.Upload, step.transfer, source, on_progress, self._address)
                    case _CheckWhole():
                        await asyncio.to_thread(source.check_whole, step.start)
                    case _Pause():
                        await asyncio.sleep(step.delay_s)
                    case _Ask():
                        answer = await self._ask(step.question)
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

    async def _ask(
        self, question: upload_pb2.GetUploadRequest
    ) -> upload_pb2.GetUploadResponse | HeadraceError:
        try:
            return await self._stub.GetUpload(question, timeout=self._timeout_s)
        except grpc.RpcError as failed:
            return from_rpc(failed, self._address)


def _result(end: StopIteration) -> upload_pb2.UploadResult:
    result: upload_pb2.UploadResult = end.value
    return result
