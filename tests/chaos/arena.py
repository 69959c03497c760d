"""The arena: one server after the other on one store, faults ordered into it, and a tenant's ledger."""

import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
from brokers.minio import Minio
from deltalake import DeltaTable
from harness.server import Server, start_server

from chaos.inject import FOLDER, SKEW, Order
from chaos.ledger import Audit, Ledger
from chaos.source import Source, make_source
from chaos.uploader import Pace, Uploader
from headrace.v1 import upload_pb2

REACH_SECONDS = 120.0
"""A point that is not reached by then is not reached at all: a scenario fails, it does not hang."""

STARTS = 3
"""How often a server is started whose Ray does not come up: as whatever watches over one would."""

TESTS = Path(__file__).parents[1]

BLOCK_BYTES = 65_536
"""Small, so that a few thousand rows are several blocks."""


@dataclass
class Arena:
    """A store and the servers on it.

    Args:
        folder: For the store, the sources and the orders; one arena each.
        minio: Where tables are instead of in the folder.
        endpoint: How the server reaches that, if not directly.
    """

    folder: Path
    minio: Minio | None = None
    endpoint: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    tenant: str = "acme"
    ledger: Ledger = field(default_factory=Ledger)
    server: Server | None = None
    starts: int = 0
    kills: int = 0
    skew_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._name = uuid.uuid4().hex[:8]
        self._sources = 0
        self.orders = self.folder / "orders"
        self.orders.mkdir(parents=True)
        self.uploader = Uploader(self.tenant, self.ledger, lambda: self.running.address, self.heal)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.server is not None and self.server.process.poll() is None:
            try:
                self.server.stop()
            except subprocess.TimeoutExpired:
                self.server.process.kill()
                raise

    @property
    def running(self) -> Server:
        """The server; started if there is none."""
        if self.server is None or self.server.process.poll() is not None:
            self.start()
        assert self.server is not None
        return self.server

    def start(self) -> None:
        """Starts a server on the store."""
        settings = {
            "HEADRACE_BLOCK_BYTES": str(BLOCK_BYTES),
            "PYTHONPATH": f"{TESTS / 'chaos' / 'site'}:{TESTS}",
            FOLDER: str(self.orders),
            SKEW: str(self.skew_seconds),
            **self._store_settings(),
            **self.settings,
        }
        for left in reversed(range(STARTS)):
            try:
                self.server = start_server(self.folder / "data", **settings)
                break
            except AssertionError as error:
                # Ray gives itself a time to start in, which a machine under load does not keep.
                if not left or "Ray does not start" not in str(error):
                    raise
        self.starts += 1

    def heal(self) -> None:
        """Starts the server again if it is dead."""
        _ = self.running

    def kill(self) -> None:
        """Ends the server as a power cut would."""
        assert self.server is not None
        self.kills += 1
        self.server.process.kill()
        self.server.process.wait(30)

    def order(self, point: str, deed: str, *, nth: int = 1, error: str = "builtins:OSError") -> None:
        """Has a fault happen at a point, once."""
        (self.orders / f"{point}.release").unlink(missing_ok=True)
        Order(point, deed, nth, error).arm(self.orders)  # type: ignore[arg-type]

    def release(self, point: str) -> None:
        """Lets what was paused at a point go on."""
        (self.orders / f"{point}.release").touch()

    def hits(self, point: str = "*") -> int:
        """Faults that did happen."""
        return len(list(self.orders.glob(f"{point}.hit-*")))

    @contextmanager
    def paused(self, point: str, work: Callable[[], object]) -> Iterator[None]:
        """Does work in a thread and has it pause at a point while the context lasts; then lets it end.

        Raises:
            AssertionError: The work ended without coming to the point, or did not come to it in time.
        """
        hits, deadline = self.hits(point), time.monotonic() + REACH_SECONDS
        self.order(point, "pause")
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while self.hits(point) == hits:
                assert thread.is_alive(), f"what was to pause at {point} ended without coming there"
                assert time.monotonic() < deadline, f"{point} was not reached in time"
                time.sleep(0.05)
            yield
        finally:
            self.drop_orders()
            self.release(point)
            thread.join(REACH_SECONDS)
        assert not thread.is_alive(), f"what was paused at {point} does not end"

    def drop_orders(self) -> list[str]:
        """Takes back what was ordered and has not happened; returns the points."""
        armed = list(self.orders.glob("*.armed"))
        for path in armed:
            path.unlink(missing_ok=True)
        return [path.stem for path in armed]

    def source(self, rows: int, *, dirty: bool = True) -> Source:
        """New rows, like no others of this arena."""
        self._sources += 1
        return make_source(self.folder, f"s{self._sources}", rows, dirty=dirty)

    def upload(
        self, source: Source, upload_id: str = "", pace: Pace = lambda _: None
    ) -> upload_pb2.UploadResult:
        """Uploads a source to the end."""
        return self.uploader.upload(source, upload_id or str(uuid.uuid4()), pace)

    def audit(self) -> Audit:
        """What the ledger finds in the tables now."""
        return self.ledger.audit(
            self.uri("RAW", "interactions"), self.uri("PROCESSED", "rejects"), self.options
        )

    def visible(self) -> int:
        """Rows of the tenant's table, as its log counts them."""
        uri = self.uri("RAW", "interactions")
        if not DeltaTable.is_deltatable(uri, self.options):
            return 0
        adds = pa.table(DeltaTable(uri, storage_options=self.options).get_add_actions())
        return sum(adds["num_records"].to_pylist())

    def twin(self) -> "Arena":
        """Another server on the same object store, with the same ledger."""
        assert self.minio is not None
        twin = Arena(self.folder / "twin", self.minio, self.endpoint, dict(self.settings), ledger=self.ledger)
        twin._name = self._name
        return twin

    def uri(self, bucket: str, table: str) -> str:
        """Where a table of the tenant is."""
        if self.minio is not None:
            return f"s3://{bucket.lower()}-{self._name}/{self.tenant}/{table}"
        folder = {"RAW": "raw-data", "PROCESSED": "processed-data"}[bucket]
        return str(self.folder / "data" / folder / self.tenant / table)

    @property
    def options(self) -> dict[str, str]:
        """How deltalake reaches the store, past any proxy."""
        if self.minio is None:
            return {}
        return {
            "AWS_ENDPOINT_URL": self.minio.endpoint,
            "AWS_ACCESS_KEY_ID": self.minio.access_key,
            "AWS_SECRET_ACCESS_KEY": self.minio.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def _store_settings(self) -> dict[str, str]:
        if self.minio is None:
            return {}
        return {
            "S3_ENDPOINT": self.endpoint or self.minio.endpoint,
            "S3_ACCESS_KEY": self.minio.access_key,
            "S3_SECRET_KEY": self.minio.secret_key,
            **{f"S3_BUCKET_{name}": f"{name.lower()}-{self._name}" for name in BUCKETS},
        }


BUCKETS = ("RAW", "PROCESSED", "TRAINING", "FEATURES")

MakeArena = Callable[..., Arena]
"""`make(name, **settings)`: an arena in a folder of its own."""
