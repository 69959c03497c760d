"""The scenarios: each does harm, lets the client go on, and leaves an arena to be audited."""

import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import grpc
from brokers.minio import Minio
from deltalake import DeltaTable

from chaos.arena import Arena
from chaos.inject import living
from chaos.points import UPLOAD_POINTS
from chaos.proxy import Plan, Proxy
from chaos.source import Source
from chaos.uploader import Pace
from headrace.v1 import upload_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

ROWS = 5_000
DAY_SECONDS = 86_400.0
TAKEOVER_SECONDS = 60.0
CANCELLERS = 16
BOUND_BYTES = 64 << 20

STORE_ERROR = "headrace_compute.errors:StoreUnavailableError"


@dataclass(frozen=True)
class Kill:
    """A kill at a point: of the server, or of all its workers."""

    point: str
    deed: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.deed} at {self.point}" + (f" ({self.nth}.)" if self.nth > 1 else "")


def all_kills() -> list[Kill]:
    """Both kinds at every point of an upload; version 0 of a table is made once only, so that comes first."""
    first = [Kill("version-0.after", "kill server")]
    rest = [name for name in UPLOAD_POINTS if not name.startswith("version-0")]
    # The second call too where a block has been acknowledged, or a part written, by then.
    again = [Kill(name, "kill server", 2) for name in ("part.after", "block-record.before", "create.after")]
    return first + [Kill(name, f"kill {victim}") for name in rest for victim in ("server", "workers")] + again


def kill(arena: Arena, order: Kill) -> None:
    """An upload during which something is killed once, and the question for its result afterwards."""
    source, upload_id = arena.source(ROWS), str(uuid.uuid4())
    arena.heal()
    before, hits = arena.visible(), arena.hits(order.point)
    arena.order(order.point, order.deed, nth=order.nth)
    seen: list[int] = []

    def look(offset: int) -> None:
        if offset < len(source.data):
            seen.append(arena.visible())

    arena.upload(source, upload_id, look)
    assert arena.hits(order.point) == hits + 1, f"{order} did not happen"
    assert set(seen) <= {before}, "rows of an upload that has not finished can be seen"
    arena.upload(source, upload_id)  # The ledger compares the two results.


def lost_replies(arena: Arena) -> None:
    """What was done is told as failed: session records, and the commit itself; or was not done at all."""
    for point, error, nths in (
        ("create.before", STORE_ERROR, (1, 2, 3, 5)),
        ("create.after", STORE_ERROR, (1, 2, 3, 5)),
        ("delta-write.before", "builtins:OSError", (1, 2)),
        ("delta-write.after", "builtins:OSError", (1, 2)),
        ("data-commit.after", STORE_ERROR, (1,)),
        ("rejects-commit.after", STORE_ERROR, (1,)),
        ("done-record.after", STORE_ERROR, (1,)),
    ):
        for nth in nths:
            arena.heal()  # Before the order, which is for the upload.
            hits = arena.hits(point)
            arena.order(point, "raise", nth=nth, error=error)
            arena.upload(arena.source(ROWS))
            assert arena.hits(point) == hits + 1, f"{point} was not reached for the {nth}. time"


def bad_line(arena: Arena, plan: Plan, uploads: int) -> int:
    """Uploads over a line that breaks; returns how often it broke."""
    arena.heal()  # Before the line is silent for as long as a server takes to start.
    direct = arena.uploader
    with Proxy(lambda: arena.running.address, plan) as proxy:
        arena.uploader = replace(
            direct, address=lambda: proxy.address, silence_seconds=3.0, tries=60, failures=[]
        )
        try:
            for _ in range(uploads):
                source, upload_id = arena.source(ROWS), str(uuid.uuid4())
                arena.upload(source, upload_id)
                arena.upload(source, upload_id)
        finally:
            arena.uploader = direct
        return sum(count for name, count in proxy.done.items() if name != "connections")


def two_streams(arena: Arena, other: Arena | None = None) -> None:
    """A second stream of an upload goes past the first, on the same server or on another."""
    source, upload_id = arena.source(8 * ROWS), str(uuid.uuid4())
    second, overtaken = threading.Lock(), threading.Event()

    def be_overtaken(offset: int) -> None:
        if offset >= len(source.data) // 2 and second.acquire(blocking=False):
            (other or arena).upload(source, upload_id)
            overtaken.set()

    codes: list[grpc.StatusCode] = []
    _try_once(arena, source, upload_id, codes, be_overtaken)
    assert codes == [grpc.StatusCode.ABORTED], f"the first stream ended with {codes}"
    # The first stream ends while the second still sends; a third before its end would only fence it in turn.
    assert overtaken.wait(TAKEOVER_SECONDS), "the second stream has not come to its end"
    arena.upload(source, upload_id)  # The ledger compares the two results.


def other_replica(arena: Arena, other: Arena) -> None:
    """The server dies in the middle of an upload, which another one on the same store takes to its end."""
    source, upload_id = arena.source(8 * ROWS), str(uuid.uuid4())
    fine = arena.uploader.in_small_steps()
    deaths = iter([arena.kill])

    def die(offset: int) -> None:
        if offset >= len(source.data) // 2 and (death := next(deaths, None)):
            death()

    arena.heal()
    with suppress(grpc.RpcError):
        fine.once(source, upload_id, die)
    account = arena.ledger.accounts[upload_id]
    assert account.acked > 0
    assert account.result is None
    other.upload(source, upload_id)
    arena.upload(source, upload_id)  # The ledger compares the two results.


def two_finishes(arena: Arena) -> None:
    """While one stream is between finish record and commit, another rolls the same upload forward."""
    source, upload_id = arena.source(ROWS), str(uuid.uuid4())
    results: list[upload_pb2.UploadResult] = []
    with arena.paused("finish-record.after", lambda: results.append(arena.upload(source, upload_id))):
        results.append(arena.upload(source, upload_id))
    assert len(results) == 2
    assert results[0].version == results[1].version


def spoil_part(arena: Arena, point: str, spoil: Callable[[Path], None]) -> None:
    """A part is spoilt before the commit, which must not take place with it."""
    arena.upload(arena.source(ROWS))
    source, upload_id = arena.source(ROWS), str(uuid.uuid4())
    codes: list[grpc.StatusCode] = []
    with arena.paused(point, lambda: _try_once(arena, source, upload_id, codes)):
        parts = Path(arena.uri("RAW", "interactions")).rglob(f"*{upload_id}*.parquet")
        if point == "finish-record.after":
            arena.kill()  # The outcome is fixed; whoever rolls it forward must look again.
        spoil(max(parts, key=lambda path: path.stat().st_mtime_ns))
    assert codes, "a commit was made with a spoilt part"
    again = point == "duplicates.after"  # What finish wrote can be written again, and is.
    if point != "finish-record.after":
        assert codes == [grpc.StatusCode.UNAVAILABLE if again else grpc.StatusCode.DATA_LOSS]
    arena.heal()
    for _ in range(2):
        _try_once(arena, source, upload_id, codes)
    assert (arena.ledger.accounts[upload_id].result is not None) == again
    if not again:
        # Refused for good, and the client knows: nobody was promised these rows. None of them may be seen.
        assert codes[1:] == [grpc.StatusCode.DATA_LOSS] * 2, codes
        del arena.ledger.accounts[upload_id]
    arena.upload(arena.source(ROWS))


def _try_once(
    arena: Arena,
    source: Source,
    upload_id: str,
    codes: list[grpc.StatusCode],
    pace: Pace = lambda _: None,
) -> None:
    try:
        arena.uploader.once(source, upload_id, pace)
    except grpc.RpcError as error:
        codes.append(error.code())


def delete_part(path: Path) -> None:
    """Takes a file away."""
    path.unlink()


def cut_part(path: Path) -> None:
    """Leaves half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def wrong_clock(arena: Arena) -> None:
    """One upload by servers a day ahead, a day behind, and ahead again, each killed."""
    source, upload_id = arena.source(3 * ROWS, dirty=True), str(uuid.uuid4())
    thirds = [len(source.data) * n // 3 for n in (1, 2)]
    arena.uploader = arena.uploader.in_small_steps()
    arena.skew_seconds = DAY_SECONDS
    arena.start()

    def jump(offset: int) -> None:
        if thirds and offset >= thirds[0]:
            thirds.pop(0)
            arena.skew_seconds = -arena.skew_seconds
            arena.kill()

    arena.upload(source, upload_id, jump)
    assert not thirds
    arena.upload(arena.source(ROWS))


def slow_client(arena: Arena, seconds: float) -> None:
    """A client that sends one byte a second, beside others that do not."""
    source = arena.source(ROWS)
    upload_id = str(uuid.uuid4())
    arena.ledger.open(upload_id, source)
    header = upload_pb2.UploadHeader(tenant_id="slow", data_type="interactions")
    line = b"user_id,item_id,interaction_type,timestamp\nu,i,view,2024-01-01\n"
    fast = int(len(line) - seconds)

    def requests() -> Iterator[upload_pb2.UploadRequest]:
        yield upload_pb2.UploadRequest(header=header)
        if fast > 0:
            yield upload_pb2.UploadRequest(chunk=upload_pb2.UploadChunk(data=line[:fast]))
        for byte in line[max(0, fast) :]:
            time.sleep(1)
            yield upload_pb2.UploadRequest(chunk=upload_pb2.UploadChunk(data=bytes([byte])))
        yield upload_pb2.UploadRequest(finish=upload_pb2.UploadFinish())

    with grpc.insecure_channel(arena.running.address) as channel:
        slow = PipelineServiceStub(channel).Upload(requests())
        arena.upload(source, upload_id)
        *_, last = slow
    assert last.result.rows_accepted == 1, last


def cancelled_calls(arena: Arena, calls: int) -> tuple[int, int]:
    """Uploads that are called off, anywhere; returns the server's bytes before and after them."""
    arena.heal()
    data = arena.source(ROWS).data[:]
    _cancel(arena, max(500, calls // 10), data)  # What a server needs anyway is there afterwards.
    before = own_bytes(arena)
    _cancel(arena, calls, data)
    arena.upload(arena.source(ROWS))
    after = own_bytes(arena)
    assert after - before < BOUND_BYTES, f"{calls:,} cancelled calls left {(after - before) >> 20} MiB"
    return before, after


def _cancel(arena: Arena, calls: int, data: bytes) -> None:
    def cancel(seed: int) -> None:
        dice = random.Random(seed)
        with grpc.insecure_channel(
            arena.running.address, (("grpc.use_local_subchannel_pool", 1),)
        ) as channel:
            stub = PipelineServiceStub(channel)
            for _ in range(calls // CANCELLERS):
                _cancel_one(stub, dice, data)

    threads = [threading.Thread(target=cancel, args=(seed,)) for seed in range(CANCELLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _cancel_one(stub: PipelineServiceStub, dice: random.Random, data: bytes) -> None:
    sends, reads = dice.randrange(4), dice.randrange(3)
    over = threading.Event()

    def requests() -> Iterator[upload_pb2.UploadRequest]:
        yield upload_pb2.UploadRequest(
            header=upload_pb2.UploadHeader(tenant_id=f"c{dice.randrange(50)}", data_type="interactions")
        )
        for _ in range(sends):
            yield upload_pb2.UploadRequest(chunk=upload_pb2.UploadChunk(data=data[: dice.randrange(100_000)]))
        yield upload_pb2.UploadRequest(flush=upload_pb2.UploadFlush())  # So that there is an ack to read.
        over.wait()

    call = stub.Upload(requests(), timeout=60)
    try:
        for _ in range(reads):
            next(iter(call))
    except (grpc.RpcError, StopIteration):
        pass
    finally:
        call.cancel()  # type: ignore[no-untyped-call]
        over.set()


def own_bytes(arena: Arena) -> int:
    """The server process's own memory."""
    lines = Path(f"/proc/{arena.running.process.pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields[name].split()[0]) << 10 for name in ("RssAnon", "RssFile"))


def killed_workers(arena: Arena, kills: int) -> None:
    """Workers killed at any moment, not at a point."""
    source, dice = arena.source(kills * 4 * ROWS), random.Random(7)
    places = sorted(dice.randrange(len(source.data)) for _ in range(kills))

    def strike(offset: int) -> None:
        if places and offset >= places[0]:
            places.pop(0)
            for pid in living(arena.orders, "worker")[:1]:
                os.kill(pid, signal.SIGKILL)

    arena.heal()
    fine = arena.uploader.in_small_steps()
    fine.upload(source, str(uuid.uuid4()), strike)
    assert not places


def big_upload(arena: Arena, rows: int, kills: int = 3) -> None:
    """One upload in peace and the same with the server killed: the tables are equal, row by row."""
    source = arena.source(rows, dirty=False)
    calm = Arena(arena.folder / "calm", settings=dict(arena.settings), tenant="calm")
    with calm:
        calm.upload(source)
        assert calm.audit().clean
    places = [len(source.data) * (n + 1) // (kills + 1) for n in range(kills)]

    def strike(offset: int) -> None:
        if places and offset >= places[0]:
            places.pop(0)
            arena.kill()

    arena.upload(source, pace=strike)
    assert not places
    different = differences(calm.uri("RAW", "interactions"), arena.uri("RAW", "interactions"))
    assert different == 0, f"{different} rows differ from those of the uninterrupted upload"


def differences(left: str, right: str) -> int:
    """Rows of one table that the other has not, by everything but the upload's id and time."""
    columns = "user_id, item_id, interaction_type, timestamp, rating, row_number, bucket"
    with duckdb.connect() as connection:
        sides = []
        for uri in (left, right):
            files: Sequence[str] = [file.removeprefix("file://") for file in DeltaTable(uri).file_uris()]
            names = ", ".join(f"'{file}'" for file in files)
            sides.append(f"SELECT {columns} FROM read_parquet([{names}])")
        (count,) = connection.execute(
            f"""
            SELECT count(*) FROM ({sides[0]}) AS a FULL JOIN ({sides[1]}) AS b USING (row_number)
            WHERE (a.user_id, a.item_id, a.interaction_type, a.timestamp, a.rating, a.bucket)
                IS DISTINCT FROM (b.user_id, b.item_id, b.interaction_type, b.timestamp, b.rating, b.bucket)
            """
        ).fetchone() or (-1,)
    return int(count)


def bad_store_line(folder: Path, minio: Minio, plan: Plan, uploads: int) -> tuple[Arena, int]:
    """Uploads by a server whose line to its store breaks; returns the arena, and how often it broke."""
    active = threading.Event()
    target = minio.endpoint.removeprefix("http://")
    with Proxy(lambda: target, lambda number: plan(number) if active.is_set() else None) as proxy:
        arena = Arena(folder, minio=minio, endpoint=f"http://{proxy.address}")
        with arena:
            arena.heal()
            active.set()
            arena.uploader.tries = 60
            for _ in range(uploads):
                source, upload_id = arena.source(ROWS), str(uuid.uuid4())
                arena.upload(source, upload_id)
                arena.upload(source, upload_id)
            active.clear()
        return arena, sum(count for name, count in proxy.done.items() if name != "connections")
