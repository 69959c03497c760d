"""The upload protocol against a model, on a store that fails before and after it writes.

Hypothesis chooses what clients, store and server do; streams, session log, finish and commits are the
real ones, in this process. Whatever happens, each finished upload's rows are in the table once, others' not
at all, and no acknowledged byte has to be sent again.
"""

import asyncio
import contextlib
import shutil
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from headrace.v1 import upload_pb2
from headrace_compute.errors import HeadraceError, StoreUnavailableError
from headrace_compute.objects.local import LocalStore
from headrace_compute.workers.quarantine import Quarantine
from headrace_server.maintenance import Maintenance
from headrace_server.services import Services
from headrace_server.settings import Settings
from headrace_server.uploads.recovery import recover
from headrace_server.uploads.stream import serve_upload

HEADER = b"user_id,item_id,interaction_type,timestamp\n"
SECONDS = 30.0

WRITES = ("create", "create", "delete", "commit")

uploads = st.integers(0, 2)


def record(upload: int, row: int) -> bytes:
    return f"u{upload},{upload}-{row:06d},view,2024-01-01\n".encode()


def stream(upload: int, rows: int) -> bytes:
    return HEADER + b"".join(record(upload, row) for row in range(rows))


def rows_before(offset: int) -> int:
    return max(0, offset - len(HEADER)) // len(record(0, 0))


class InlinePool:
    """Runs stages where it is called."""

    group = member = ""
    size = 1

    def __init__(self, config: Any) -> None:
        self._config = config
        self.quarantine = Quarantine()

    def executor(self, group: str, member: str) -> "InlinePool":
        return self

    async def run(self, stage: Any, *args: Any) -> Any:
        return stage(self._config, *args)

    hold = run


class NoOutbox:
    def notify(self, tenant: str, table: str) -> None: ...


class Faults:
    """Wraps a method so that its n-th call from now fails, once, before or after it has done its work."""

    def __init__(self, owner: type, name: str, error: Exception) -> None:
        self._owner, self._name, self._error = owner, name, error
        self._method = getattr(owner, name)
        self.left, self.after, self.happened = 0, False, 0
        setattr(owner, name, lambda *args, **kwargs: self._call(*args, **kwargs))

    def remove(self) -> None:
        setattr(self._owner, self._name, self._method)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        if self.left:
            return self._method(*args, **kwargs)
        self.happened += 1
        if self.after:
            self._method(*args, **kwargs)
        raise self._error


class Line:
    """A client's stream: what it has sent and heard."""

    def __init__(self, services: Services, upload_id: str) -> None:
        self._requests: asyncio.Queue[upload_pb2.UploadRequest] = asyncio.Queue()
        self._heard = asyncio.Event()
        self.started: int | None = None
        self.acked = 0
        self.sent = 0
        self.result: Any = None
        self.error: HeadraceError | None = None
        self.told: Any = None
        header = upload_pb2.UploadHeader(tenant_id="acme", data_type="interactions", upload_id=upload_id)
        self.send(upload_pb2.UploadRequest(header=header))
        self.task = asyncio.get_running_loop().create_task(self._run(services))

    def send(self, request: upload_pb2.UploadRequest) -> None:
        self._requests.put_nowait(request)

    async def until(self, condition: Any) -> None:
        """Waits for something to be heard, or for the end."""
        async with asyncio.timeout(SECONDS):
            while not condition() and not self.task.done():
                self._heard.clear()
                waiter = asyncio.ensure_future(self._heard.wait())
                await asyncio.wait({self.task, waiter}, return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()

    async def _run(self, services: Services) -> None:
        async def requests() -> Any:
            while True:
                yield await self._requests.get()

        try:
            stream: Any = serve_upload(services, requests())
            async with contextlib.aclosing(stream) as responses:
                async for response in responses:
                    match response.WhichOneof("response"):
                        case "started":
                            self.started = self.acked = self.sent = response.started.persisted_offset
                        case "ack":
                            self.acked = max(self.acked, response.ack.persisted_offset)
                        case "result":
                            self.result = response.result
                        case "error":
                            self.told = response.error
                    self._heard.set()
                    if response.WhichOneof("response") in ("result", "error"):
                        return  # A client that has heard the end hangs up.
        except HeadraceError as error:
            self.error = error


class Protocol(RuleBasedStateMachine):
    faults_happened = 0

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-machine-"))
        self.loop = asyncio.new_event_loop()
        lost = StoreUnavailableError("chaos")
        self.faults = {
            "create": Faults(LocalStore, "create", lost),
            "delete": Faults(LocalStore, "delete", lost),
            "commit": Faults(DeltaTable, "create_write_transaction", OSError("chaos")),
        }
        self.ids = [str(uuid.uuid4()) for _ in range(3)]
        self.lines: dict[int, Line] = {}
        self.acked: Counter[int] = Counter()
        self.results: dict[int, Any] = {}
        self.finishes: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
        self.settings = Settings(_env_file=None, data_dir=self.folder / "data")  # type: ignore[call-arg]
        self._new_server()

    def _new_server(self) -> None:
        config = self.settings.store()
        pool: Any = InlinePool(config)
        self.services = Services(
            self.settings,
            config,
            pool,
            NoOutbox(),  # type: ignore[arg-type]
            Maintenance(pool, "test"),
        )

    @rule(upload=uploads)
    def open(self, upload: int) -> None:
        self.loop.run_until_complete(self._open(upload))

    async def _open(self, upload: int) -> None:
        line = Line(self.services, self.ids[upload])
        await line.until(lambda: line.started is not None)
        if line.started is None:
            return  # The store has failed.
        self.lines[upload] = line
        assert line.started >= self.acked[upload], "what was acknowledged must be sent again"
        self.acked[upload] = line.started
        await asyncio.sleep(0.01)
        if line.started > len(HEADER) and rows_before(line.started) in self.finishes[upload]:
            await line.until(lambda: line.result is not None or not self._is_finished(upload))
            self._hear(upload, line)

    def _is_finished(self, upload: int) -> bool:
        folder = self.folder / "data/raw-data/_headrace/uploads/acme" / self.ids[upload]
        return any(b'"kind":"finish"' in path.read_bytes() for path in folder.glob("0*"))

    @rule(upload=uploads, rows=st.integers(1, 5), replay=st.booleans())
    def send(self, upload: int, rows: int, replay: bool) -> None:
        """Sends more rows, with or without everything that came before them."""
        if (line := self.lines.get(upload)) is not None and not line.task.done():
            self.loop.run_until_complete(self._send(upload, line, rows, replay))

    async def _send(self, upload: int, line: Line, rows: int, replay: bool) -> None:
        data = stream(upload, rows_before(line.sent) + rows)
        at = 0 if replay else line.sent
        line.send(upload_pb2.UploadRequest(chunk=upload_pb2.UploadChunk(data=data[at:], offset=at)))
        line.send(upload_pb2.UploadRequest(flush=upload_pb2.UploadFlush()))
        line.sent = len(data)
        await line.until(lambda: line.acked >= line.sent)
        self._hear(upload, line)

    @rule(upload=uploads)
    def finish(self, upload: int) -> None:
        line = self.lines.get(upload)
        if line is not None and not line.task.done() and line.sent > 0:
            self.loop.run_until_complete(self._finish(upload, line))

    async def _finish(self, upload: int, line: Line) -> None:
        self.finishes[upload].add(rows_before(line.sent))
        line.send(upload_pb2.UploadRequest(finish=upload_pb2.UploadFinish(total_size=line.sent)))
        await line.until(lambda: line.result is not None)
        self._hear(upload, line)

    def _hear(self, upload: int, line: Line) -> None:
        self.acked[upload] = max(self.acked[upload], line.acked)
        if line.result is not None:
            assert self.results.setdefault(upload, line.result) == line.result, "another result than before"

    @initialize(nth=st.integers(1, 12), after=st.booleans())
    def fail_soon(self, nth: int, after: bool) -> None:
        """No example is without a fault, if it comes so far."""
        self.fail("create", nth, after)

    @rule(
        what=st.sampled_from(["create", "create", "delete", "commit"]),
        nth=st.integers(1, 8),
        after=st.booleans(),
    )
    def fail(self, what: str, nth: int, after: bool) -> None:
        """The store's n-th write from now fails, perhaps after it has written."""
        self.faults[what].left, self.faults[what].after = nth, after

    @rule()
    def crash(self) -> None:
        """All streams break off, and a new server looks at what the old one left."""
        self.loop.run_until_complete(self._crash())

    async def _crash(self) -> None:
        for line in self.lines.values():
            line.task.cancel()
        await asyncio.gather(*(line.task for line in self.lines.values()), return_exceptions=True)
        self.lines.clear()
        self._new_server()
        with contextlib.suppress(HeadraceError):
            await recover(self.services)

    @invariant()
    def every_finished_row_is_there_once_and_no_other(self) -> None:
        uri = str(self.folder / "data/raw-data/acme/interactions")
        found: list[str] = []
        if DeltaTable.is_deltatable(uri):
            found = DeltaTable(uri).to_pyarrow_table(columns=["item_id"])["item_id"].to_pylist()
        for upload in range(3):
            mine = sorted(item for item in found if item.startswith(f"{upload}-"))
            rows = len(mine)
            assert mine == [f"{upload}-{row:06d}" for row in range(rows)]
            if upload in self.results:
                assert rows == self.results[upload].rows_accepted
            assert rows == 0 or rows in self.finishes[upload], "rows of an unfinished upload can be seen"

    def teardown(self) -> None:
        try:
            for fault in self.faults.values():
                type(self).faults_happened += fault.happened
                fault.remove()
            self.loop.run_until_complete(self._end_all())
            self.every_finished_row_is_there_once_and_no_other()
            self.loop.run_until_complete(self._crash())
        finally:
            self.loop.close()
            shutil.rmtree(self.folder)

    async def _end_all(self) -> None:
        """Without faults every upload comes to its end."""
        await self._crash()
        for upload in range(3):
            await self._open(upload)
            line = self.lines[upload]
            if upload not in self.results and line.result is None:
                await self._send(upload, line, 1, replay=False)
                await self._finish(upload, line)
            assert upload in self.results or line.result is not None, line.error or line.told


@pytest.mark.timeout(300)
def test_whatever_clients_store_and_server_do_rows_are_there_once() -> None:
    Protocol.faults_happened = 0
    run_state_machine_as_test(
        Protocol,
        settings=settings(stateful_step_count=20, suppress_health_check=list(HealthCheck)),
    )
    assert Protocol.faults_happened > 0
