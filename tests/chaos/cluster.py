"""`make chaos-cluster`: servers, nodes of a Ray cluster, MinIO and Kafka, of which one or another is dying.

Uploads, small ingests and runs go on meanwhile, each against one of two servers. In the end every row must
be there once, every commit have its event, the tables of runs be those of an undisturbed one, and no part be
left over once what the dead have entered is cleared, which servers do after a day. All is on this machine,
over loopback: a node is a few processes, and its loss a power cut, not a cut line.
"""

import argparse
import asyncio
import json
import math
import random
import re
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from brokers.kafka import Kafka, start_kafka
from brokers.minio import Minio, start_minio
from brokers.server import free_ports
from confluent_kafka import Consumer
from harness.nodes import Nodes
from harness.server import Server, start_server
from minio import Minio as Store

from headrace import Client
from headrace.errors import UnavailableError
from headrace.sample import Sample, generate
from headrace_compute.model import S3Config, StoreConfig
from headrace_server import dead

NODES = 3
PATIENCE_SECONDS = 180.0
PAUSE_SECONDS = (6.0, 15.0)
"""Between two faults: less than some of them take to be mended."""

AWAY_SECONDS = 4.0
"""How long a broker, a store or a node stays away."""

SWEEP_SECONDS = 20.0
"""What ended uploads leave behind is deleted by then."""

TOLD_SECONDS = 120.0
"""How long after everything is mended events may take."""

BUCKETS = ("RAW", "PROCESSED", "TRAINING", "FEATURES")
TOPICS = ("INTERACTIONS", "ITEMS", "FEATURES", "TRAINING")
RECORD = re.compile(r"/\d{8}$")
PART_KEY = re.compile(r'"key": ?"([^"]+)"')
RUNS = "runs"
SET = "trained"
ROW = {"user_id": "u", "interaction_type": "view", "timestamp": "2026-01-01"}


class Stack:
    """Everything that runs, and how to do harm to it.

    Attributes:
        faults: How often each kind of harm was done.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.faults: Counter[str] = Counter()
        self.minio = start_minio(folder / "minio")
        self.kafka = start_kafka(folder / "kafka")
        self.name = uuid.uuid4().hex[:8]
        self._nodes = Nodes()
        self._living = [self._nodes.add(1) for _ in range(NODES)]
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        self._servers = [self._start(number) for number in range(2)]

    def stop_servers(self) -> None:
        """Ends the servers, and with them all work."""
        for server in self._servers:
            server.stop()

    def close(self) -> None:
        """Ends everything."""
        self.stop_servers()
        self._nodes.__exit__()
        self.kafka.kill()
        self.minio.kill()

    def harm(self, dice: random.Random) -> None:
        """Does one kind of harm, and mends it."""
        kind: Callable[[random.Random], None] = dice.choice(
            (self._lose_node, self._kill_server, self._stop_minio, self._stop_kafka)
        )
        self.faults[kind.__name__.strip("_").replace("_", " ")] += 1
        kind(dice)

    def _lose_node(self, dice: random.Random) -> None:
        node = self._living.pop(dice.randrange(len(self._living)))
        self._nodes.kill(node)
        time.sleep(AWAY_SECONDS)
        self._living.append(self._nodes.add(1))

    def _kill_server(self, dice: random.Random) -> None:
        number = dice.randrange(len(self._servers))
        self._servers[number].process.kill()
        self._servers[number].process.wait()
        self._servers[number] = self._start(number)

    def _stop_minio(self, _: random.Random) -> None:
        _away(self.minio)

    def _stop_kafka(self, _: random.Random) -> None:
        _away(self.kafka)

    def _start(self, number: int) -> Server:
        folder = self._folder / f"server-{number}"
        folder.mkdir(exist_ok=True)
        return start_server(
            folder / "data",
            **self._nodes.settings,
            HEADRACE_GRPC_ADDRESS=self.addresses[number],
            HEADRACE_BLOCK_BYTES="262144",
            S3_ENDPOINT=self.minio.endpoint,
            S3_ACCESS_KEY=self.minio.access_key,
            S3_SECRET_KEY=self.minio.secret_key,
            KAFKA_BOOTSTRAP_SERVERS=self.kafka.bootstrap,
            KAFKA_ROW_EVENTS="commits",
            **{f"S3_BUCKET_{name}": self.bucket(name) for name in BUCKETS},
            **{f"KAFKA_TOPIC_{name}": self.topic(name) for name in TOPICS},
        )

    def store(self) -> StoreConfig:
        """Where everything is stored."""
        s3 = S3Config(self.minio.endpoint, self.minio.access_key, self.minio.secret_key)
        buckets = {name.lower(): self.bucket(name) for name in BUCKETS}
        return StoreConfig(str(self._folder), **buckets, s3=s3)

    def bucket(self, name: str) -> str:
        """The bucket of a setting."""
        return f"{name.lower()}-{self.name}"

    def topic(self, name: str) -> str:
        """The topic of a setting."""
        return f"{name.lower()}-{self.name}"


def _away(broker: Minio | Kafka) -> None:
    broker.kill()
    time.sleep(AWAY_SECONDS)
    broker.start()


@dataclass
class Work:
    """What clients have done, and were promised.

    Attributes:
        uploaded: Rows accepted of each tenant that uploads.
        ingested: Rows of small ingests by tenant.
        runs: Runs that ended well.
        stall_seconds: The longest time until a client that tries on had a success, by what it did.
    """

    uploaded: Counter[str] = field(default_factory=Counter)
    ingested: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    stall_seconds: dict[str, float] = field(default_factory=dict)

    def insist(self, what: str, call: Callable[[], Any]) -> Any:
        """Makes a call until it ends well, as a client would that is told UNAVAILABLE."""
        started = time.monotonic()
        while True:
            try:
                found = call()
                break
            except UnavailableError:
                if time.monotonic() - started > PATIENCE_SECONDS:
                    raise
                time.sleep(0.2)
        self.stall_seconds[what] = max(self.stall_seconds.get(what, 0.0), time.monotonic() - started)
        return found


def upload(stack: Stack, work: Work, number: int, over: threading.Event, folder: Path) -> None:
    """Uploads of rows that no other upload has, one after the other."""
    tenant, seed = f"uploads-{number}", number
    with Client(stack.addresses[number % 2]) as client:
        while not over.is_set():
            seed += 100
            sample = Sample(users=2_000, items=500, interactions=60_000, seed=seed, dirty=0.01)
            file = generate(sample, folder / f"{tenant}-{seed}").interactions
            upload_id = str(uuid.uuid4())
            send = lambda file=file, upload_id=upload_id: client.upload(  # noqa: E731
                tenant, "interactions", file, upload_id=upload_id, patience_s=PATIENCE_SECONDS
            )
            work.uploaded[tenant] += work.insist("upload", send).rows_accepted


def ingest(stack: Stack, work: Work, number: int, over: threading.Event) -> None:
    """One row after the other; each request is made again until it is answered."""
    tenant = f"small-{number}"
    with Client(stack.addresses[number % 2]) as client:
        while not over.is_set():
            row = ROW | {"item_id": f"i{work.ingested[tenant]}"}
            request_id = str(uuid.uuid4())
            send = lambda row=row, request_id=request_id: client.ingest_interactions(  # noqa: E731
                tenant, [row], request_id=request_id
            )
            work.insist("one-row ingest", send)
            work.ingested[tenant] += 1


def run(stack: Stack, work: Work, over: threading.Event) -> None:
    """Features and training data, over and over, of rows that stay as they are."""
    with Client(stack.addresses[1]) as client:
        while not over.is_set():
            work.insist("features", lambda: client.compute_features(RUNS))
            work.insist("negatives", lambda: client.sample_negatives(RUNS, dataset=SET))
            work.runs += 2


def tables_of_runs(address: str) -> dict[str, pa.Table]:
    """What the runs have made, by table, in one order of rows."""
    with Client(address) as client:
        found = {name: client.read_table(RUNS, name) for name in ("user_features", SET)}
    return {
        name: table.sort_by([(key, "ascending") for key in _keys(table)]) for name, table in found.items()
    }


def _keys(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if not pa.types.is_nested(table.schema.field(name).type)]


def faults_found(stack: Stack, work: Work, calm: dict[str, pa.Table]) -> list[str]:
    """Everything that is not as it must be."""
    found = []
    with Client(stack.addresses[0]) as client:
        for tenant, rows in (work.uploaded + work.ingested).items():
            table = client.read_table(tenant, "interactions", columns=["upload_id", "row_number"])
            distinct = table.group_by(["upload_id", "row_number"]).aggregate([]).num_rows
            if distinct < rows or table.num_rows > rows:
                found.append(f"{tenant}: promised {rows:,}, there {distinct:,} in {table.num_rows:,} rows")
    different = [name for name, table in tables_of_runs(stack.addresses[0]).items() if table != calm[name]]
    found += [f"{name} is another than that of an undisturbed run" for name in different]
    found += [f"no event of {missing}" for missing in untold(stack)[:5]]
    stack.stop_servers()
    before = left_over(stack)
    asyncio.run(dead.sweep(stack.store(), -math.inf))
    after = left_over(stack)
    print(f"{len(before):,} parts of the dead, of which {len(after):,} are left once they are cleared")
    found += [f"{len(after):,} parts left over, such as {key}" for key in after[:1]]
    return found


def left_over(stack: Stack) -> list[str]:
    """Parts that no version of a table names."""
    store = Store(
        stack.minio.endpoint.removeprefix("http://"),
        stack.minio.access_key,
        stack.minio.secret_key,
        secure=False,
    )
    parts, named = set[str](), set[str]()
    for bucket in map(stack.bucket, BUCKETS):
        for each in store.list_objects(bucket, recursive=True):
            name = each.object_name or ""
            root, is_log, entry = name.partition("/_delta_log/")
            if is_log and entry.endswith(".json"):
                added = [json.loads(line).get("add") for line in store.get_object(bucket, name)]
                named |= {f"{bucket}/{root}/{unquote(add['path'])}" for add in added if add}
            elif name.startswith("_headrace/uploads/") and RECORD.search(name):
                # Rejects of uploads are read by what their records name.
                named |= set(PART_KEY.findall(store.get_object(bucket, name).read().decode()))
            elif name.endswith(".parquet") and not is_log and not name.startswith("_headrace/"):
                parts.add(f"{bucket}/{name}")
    return sorted(parts - named)


def untold(stack: Stack) -> list[str]:
    """Commits without an event.

    Of the runs' tables, versions, but for statistics, which are told with what they are of; of others rows,
    as compactions have none.
    """
    with Client(stack.addresses[0]) as client:
        small = [f"{kind}-{number}" for kind in ("uploads", "small") for number in range(2)]
        rows = {tenant: client.read_table(tenant, "interactions", columns=[]).num_rows for tenant in small}
        versions = {
            f"{RUNS}/{table.name}@{version}"
            for table in client.list_tables(RUNS)
            if table.kind != "feature_statistics"
            for version in range(1, table.version + 1)
        }
    consumer = Consumer(
        {
            "bootstrap.servers": stack.kafka.bootstrap,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.subscribe([stack.topic(name) for name in TOPICS])
    told: dict[str, int] = {}
    deadline = time.monotonic() + TOLD_SECONDS
    while True:
        by_tenant = Counter[str]()
        for name, count in told.items():
            by_tenant[name.partition("/")[0]] += count
        missing = sorted(versions - told.keys())
        missing += [
            f"{rows[tenant] - by_tenant[tenant]:,} rows of {tenant}"
            for tenant in small
            if rows[tenant] != by_tenant[tenant]
        ]
        if not missing or time.monotonic() > deadline:
            break
        for message in consumer.consume(1_000, 1.0):
            if not message.error():
                headers: dict[str, Any] = dict(message.headers() or [])
                told[headers["ce_id"].decode()] = int(json.loads(message.value() or b"{}").get("rows", 0))
    consumer.close()
    return missing


def main() -> int:
    """Does harm for a while; 1 if anything was lost, doubled, left over or not told."""
    parser = argparse.ArgumentParser(prog="chaos.cluster", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as name:
        folder = Path(name)
        stack, work, over, dice = Stack(folder), Work(), threading.Event(), random.Random(given.seed)
        try:
            with Client(stack.addresses[0]) as client:
                sample = Sample(users=2_000, items=500, interactions=60_000, seed=1)
                client.upload(RUNS, "interactions", generate(sample, folder / "sample").interactions)
                client.compute_features(RUNS)
                client.sample_negatives(RUNS, dataset=SET)
            calm = tables_of_runs(stack.addresses[0])
            with ThreadPoolExecutor() as pool:
                try:
                    jobs = [pool.submit(upload, stack, work, number, over, folder) for number in range(2)]
                    jobs += [pool.submit(ingest, stack, work, number, over) for number in range(2)]
                    jobs += [pool.submit(run, stack, work, over)]
                    end = time.monotonic() + given.minutes * 60
                    while time.monotonic() < end and not any(job.done() for job in jobs):
                        time.sleep(dice.uniform(*PAUSE_SECONDS))
                        stack.harm(dice)
                finally:
                    over.set()
                for job in jobs:
                    job.result()
            time.sleep(SWEEP_SECONDS)
            found = faults_found(stack, work, calm)
        finally:
            stack.close()
    report(stack, work, found)
    return int(bool(found))


def report(stack: Stack, work: Work, found: list[str]) -> None:
    """Prints what was done and what came of it."""
    print("faults:", ", ".join(f"{kind} {count}" for kind, count in sorted(stack.faults.items())))
    rows = work.uploaded.total(), work.ingested.total()
    print(f"promised: {rows[0]:,} rows uploaded, {rows[1]:,} rows ingested one by one, {work.runs:,} runs")
    stalls = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in sorted(work.stall_seconds.items()))
    print(f"longest time to a success: {stalls}")
    print(*found, "FAILED" if found else "ok: nothing lost, doubled, left over or untold", sep="\n")


if __name__ == "__main__":
    sys.exit(main())
