"""Small ingests under harm: clients that ask until they are answered, and a reader beside them."""

import csv
import io
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from attack.stage import orphans
from deltalake import DeltaTable
from google.protobuf import json_format

from chaos.arena import Arena
from chaos.points import INGEST_POINTS
from chaos.scenarios import Kill
from chaos.source import Source
from chaos.uploader import PASSING, PAUSE_SECONDS
from headrace.v1 import ingest_pb2, row_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

ROWS = 5
"""Of a request; the first of them is bad, so that rejects are committed too."""

COLUMNS = ("user_id", "item_id", "interaction_type", "timestamp")

CLIENTS = 2
"""Few, so that most requests have a commit of their own and the table is compacted often."""

MOST_REQUESTS = 600
AFTERWARDS = 20
"""Requests after the harm was done."""

TRIES = 40


def all_kills() -> list[Kill]:
    """Both kinds at every point; the second append of a group is that of its rejects."""
    kills = [Kill(name, f"kill {victim}") for name in INGEST_POINTS for victim in ("server", "workers")]
    again = [Kill(f"append.{when}", "kill server", 2) for when in ("before", "after")]
    return [*kills, *again, Kill("create.before", "kill server", 3), Kill("create.after", "kill server", 3)]


def kill(arena: Arena, order: Kill) -> None:
    """Requests, one after the other, until the kill has happened and some more; then all of them again.

    The next server leaves no part that no version names.
    """
    arena.heal()
    work = _Work(arena, order)
    with _reading(arena, work):
        arena.order(order.point, order.deed, nth=order.nth)
        clients = [threading.Thread(target=work.client) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert not work.failures, work.failures
    assert work.struck, f"{order} did not happen"
    for request_id, source in work.requests:
        work.ask(request_id, source)  # The ledger compares the two results.
    arena.running.stop()
    arena.heal()
    if arena.minio is None:
        found = orphans(arena.folder / "data")
        assert not found, f"left over: {found}"


@dataclass
class _Work:
    """The requests of a scenario, made as they are needed."""

    arena: Arena
    order: Kill
    requests: list[tuple[str, Source]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    """item_ids of accepted rows that clients were told of."""

    def __post_init__(self) -> None:
        self._hits = self.arena.hits(self.order.point)
        self._lock = threading.Lock()
        self._left = AFTERWARDS

    @property
    def struck(self) -> bool:
        """Whether the harm was done."""
        return self.arena.hits(self.order.point) > self._hits

    def client(self) -> None:
        """Sends request after request."""
        try:
            while (request := self._next()) is not None:
                self.ask(*request)
        except Exception as error:
            self.failures.append(repr(error))

    def ask(self, request_id: str, source: Source) -> None:
        """Sends a request until it is answered."""
        for left in reversed(range(TRIES)):
            try:
                with grpc.insecure_channel(self.arena.running.address) as channel:
                    stub = PipelineServiceStub(channel)
                    answer = _ingest(stub, self.arena.tenant, request_id, source)
            except grpc.RpcError as error:
                if error.code() not in PASSING or not left:
                    raise
                time.sleep(PAUSE_SECONDS)
                with self._lock:
                    self.arena.heal()
                continue
            with self._lock:
                self.arena.ledger.open(answer.result.upload_id, source)
                self.arena.ledger.finished(answer.result.upload_id, answer.result)
                self.answered |= set(source.item_ids.to_pylist())
            return

    def _next(self) -> tuple[str, Source] | None:
        with self._lock:
            if self.struck:
                self._left -= 1
            if self._left <= 0 or self.failures or len(self.requests) == MOST_REQUESTS:
                return None
            self.requests.append((str(uuid.uuid4()), self.arena.source(ROWS)))
            return self.requests[-1]


@contextmanager
def _reading(arena: Arena, work: _Work) -> Iterator[None]:
    """Reads the table all the while, as anybody can: what was answered is there, and nothing twice."""
    over = threading.Event()
    reads = Counter[str]()

    def read() -> None:
        while not over.wait(0.05):
            before = set(work.answered)
            if before:
                table = DeltaTable(arena.uri("RAW", "interactions"), storage_options=arena.options)
                found = Counter(table.to_pyarrow_table(columns=["item_id"])["item_id"].to_pylist())
                reads["lost"] += len(before - found.keys())
                reads["doubled"] += found.total() - len(found)
                reads["reads"] += 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()
    assert reads["reads"], "the table could not be read"
    assert (reads["lost"], reads["doubled"]) == (0, 0), f"a reader beside the writers: {reads}"


def _ingest(
    stub: PipelineServiceStub, tenant: str, request_id: str, source: Source
) -> ingest_pb2.IngestInteractionsResponse | ingest_pb2.IngestRowsResponse:
    """Sends a request, every other one as JSON objects."""
    read = csv.DictReader(io.StringIO(source.data[:].decode()))
    rows = [{name: row[name] for name in COLUMNS} for row in read]
    if uuid.UUID(request_id).int % 2:
        objects = ingest_pb2.IngestRowsRequest(
            tenant_id=tenant, data_type="interactions", request_id=request_id
        )
        for row in rows:
            objects.rows.add().update(row)
        return stub.IngestRows(objects, timeout=60)
    interactions = [json_format.ParseDict(row, row_pb2.Interaction()) for row in rows]
    messages = ingest_pb2.IngestInteractionsRequest(
        tenant_id=tenant, rows=interactions, request_id=request_id
    )
    return stub.IngestInteractions(messages, timeout=60)
