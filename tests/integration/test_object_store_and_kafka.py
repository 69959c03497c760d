"""Headrace on a real MinIO and a real Kafka: the whole way, and what happens when one of them goes."""

import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from brokers.kafka import Kafka, start_kafka
from brokers.minio import Minio, start_minio
from confluent_kafka import Consumer
from harness.dialogue import HEADER, lines
from harness.refused import refused
from harness.server import Server
from harness.watch import eventually

from headrace import Client
from headrace.errors import HeadraceError, StoreUnavailableError, UnavailableError
from headrace.v1 import event_pb2

pytest_plugins = ["brokers.fixtures"]

DATA = Path(__file__).parents[1] / "data" / "online_retail"

Start = Callable[..., Server]


@dataclass(frozen=True)
class Place:
    """Buckets and topics of one test."""

    settings: dict[str, str]

    def topic(self, kind: str) -> str:
        return self.settings[f"KAFKA_TOPIC_{kind}"]


def place(store: Minio | None, broker: Kafka | None, **more: str) -> Place:
    """Settings for a store and a broker, with buckets and topics that no other test has."""
    name = uuid.uuid4().hex[:8]
    settings = dict(more)
    if store is not None:
        settings |= {
            "S3_ENDPOINT": store.endpoint,
            "S3_ACCESS_KEY": store.access_key,
            "S3_SECRET_KEY": store.secret_key,
            **{
                f"S3_BUCKET_{bucket}": f"{bucket.lower()}-{name}"
                for bucket in ("RAW", "PROCESSED", "TRAINING", "FEATURES")
            },
        }
    if broker is not None:
        settings["KAFKA_BOOTSTRAP_SERVERS"] = broker.bootstrap
    for kind in ("INTERACTIONS", "ITEMS", "FEATURES", "TRAINING"):
        settings[f"KAFKA_TOPIC_{kind}"] = f"{kind.lower()}-{name}"
    return Place(settings)


@dataclass(frozen=True)
class Record:
    """A record of a topic."""

    partition: int
    key: str
    headers: dict[str, str]
    value: bytes

    @property
    def id(self) -> str:
        return self.headers["ce_id"]


def consume(bootstrap: str, topic: str, at_least: int, seconds: float = 60, tenant: str = "") -> list[Record]:
    """Reads a topic from its beginning until it has that many distinct events, and then some.

    Events of others than `tenant`, if one is given, are passed over.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "topic.metadata.refresh.interval.ms": 500,
            "allow.auto.create.topics": False,
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    records: list[Record] = []
    deadline = time.monotonic() + seconds
    quiet_since = time.monotonic()
    try:
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is None or message.error():
                enough = len({record.id for record in records}) >= at_least
                if enough and time.monotonic() - quiet_since > 2:
                    break
                continue
            quiet_since = time.monotonic()
            given: dict[str, Any] = dict(message.headers() or [])
            headers = {name: (value or b"").decode() for name, value in given.items()}
            key = (message.key() or b"").decode()
            if tenant and not key.startswith(f"{tenant}/"):
                continue
            records.append(Record(message.partition() or 0, key, headers, message.value() or b""))
    finally:
        consumer.close()
    return records


def health(server: Server) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.http_port}/health")
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return dict(json.loads(response.read()))
    except urllib.error.HTTPError as error:
        return dict(json.loads(error.read()))


def becomes(server: Server, seconds: float, **expected: object) -> None:
    """Waits for a state of health, at most so long."""
    deadline = time.monotonic() + seconds
    while True:
        found = health(server)
        if all(found[name] == value for name, value in expected.items()):
            return
        assert time.monotonic() < deadline, (found, expected)
        time.sleep(0.1)


def relay_pid(server: Server) -> int:
    for child in psutil.Process(server.process.pid).children():
        if "headrace_server.events" in " ".join(child.cmdline()):
            return child.pid
    raise AssertionError("there is no relay")


def metric(server: Server, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics", timeout=5) as response:
        for line in response.read().decode().splitlines():
            if line.startswith((f"{name} ", f"{name}{{")):
                return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"there is no metric {name}")


@pytest.fixture(scope="module")
def stored(
    minio: Minio, tmp_path_factory: pytest.TempPathFactory, server_with: Start
) -> Iterator[tuple[Minio, Server]]:
    """A MinIO that tests may stop, and a server on it; `minio` makes sure that there can be one."""
    started = start_minio(tmp_path_factory.mktemp("stopped") / "minio")
    # Ray is its own: what its processes and logs hold is looked at.
    settings = {**place(started, None).settings, "RAY_ADDRESS": ""}
    yield started, server_with(**settings, HEADRACE_BLOCK_BYTES="65536")
    started.kill()


@pytest.fixture
def mortal_minio(stored: tuple[Minio, Server]) -> Iterator[tuple[Minio, Server]]:
    """The same, up and connected when a test begins."""
    minio, server = stored
    if minio.process.poll() is not None:
        minio.start()
    becomes(server, 60, s3_connected=True, status="healthy")
    yield stored
    if minio.process.poll() is not None:
        minio.start()


@dataclass(frozen=True)
class Publishing:
    """A Kafka that tests may stop, and a server that publishes to it."""

    kafka: Kafka
    where: Place
    server: Server


@pytest.fixture(scope="module")
def published(
    kafka: Kafka, tmp_path_factory: pytest.TempPathFactory, server_with: Start
) -> Iterator[Publishing]:
    """What `publishing` hands out; `kafka` makes sure that there can be one."""
    started = start_kafka(tmp_path_factory.mktemp("stopped") / "kafka")
    where = place(None, started)
    yield Publishing(started, where, server_with(**where.settings))
    started.kill()


@pytest.fixture
def publishing(published: Publishing) -> Publishing:
    """A Kafka that a test may stop, and a server on it, up and connected when the test begins."""
    if published.kafka.process.poll() is not None:
        published.kafka.start()
    becomes(published.server, 60, kafka_connected=True, status="healthy")
    return published


def test_the_retail_slice_goes_the_whole_way(own_server: Start, minio: Minio, kafka: Kafka) -> None:
    where = place(minio, kafka)
    server = own_server(**where.settings)
    with Client(server.address) as client:
        assert client.upload("retail", "items", DATA / "items.csv").rows_accepted == 2_001
        result = client.upload("retail", "interactions", DATA / "interactions.csv")
        assert (result.rows_accepted, result.version) == (6_950, 1)
        assert result.table_uri == f"s3://{where.settings['S3_BUCKET_RAW']}/retail/interactions"
        features = client.compute_features("retail")
        assert features.interactions == 6_950
        made = client.sample_negatives("retail")
        assert (made.core_pairs, made.positives, made.negatives) == (4_349, 4_264, 17_056)
        assert client.read_table("retail", "user_features").num_rows == 303
        stored = client.read_table("retail", "interactions").to_pylist()

    records = consume(kafka.bootstrap, where.topic("INTERACTIONS"), 6_950)
    assert Counter(record.id for record in records) == Counter(
        f"retail/{result.upload_id}/{row['row_number']}" for row in stored
    )
    by_id = {record.id: record for record in records}
    for row in stored:
        record = by_id[f"retail/{result.upload_id}/{row['row_number']}"]
        assert record.key == f"retail/{row['user_id']}"
        value = json.loads(record.value)
        assert (value["user_id"], value["item_id"]) == (row["user_id"], row["item_id"])
        assert value["interaction_type"] == row["interaction_type"]
    assert records[0].headers | {"ce_id": "", "ce_time": ""} == {
        "ce_specversion": "1.0",
        "ce_id": "",
        "ce_source": "/headrace/retail",
        "ce_type": "headrace.interaction.v1",
        "ce_time": "",
        "ce_tenantid": "retail",
        "content-type": "application/json",
    }
    # Each user's events are in one partition, in the order of the rows.
    order: dict[str, list[int]] = {}
    partitions: dict[str, set[int]] = {}
    for record in records:
        order.setdefault(record.key, []).append(int(record.id.rsplit("/", 1)[1]))
        partitions.setdefault(record.key, set()).add(record.partition)
    assert all(rows == sorted(rows) for rows in order.values())
    assert all(len(found) == 1 for found in partitions.values())
    assert len({partition for found in partitions.values() for partition in found}) > 1

    assert len(consume(kafka.bootstrap, where.topic("ITEMS"), 2_001)) == 2_001
    told = consume(kafka.bootstrap, where.topic("FEATURES"), 2)
    assert {record.id for record in told} == {"retail/user_features@1", "retail/item_features@1"}
    (trained,) = consume(kafka.bootstrap, where.topic("TRAINING"), 1)
    assert trained.headers["ce_type"] == "headrace.training.v1"
    assert json.loads(trained.value)["rows"] == 4_264 + 17_056


def test_events_as_protobuf_and_one_per_commit(own_server: Start, kafka: Kafka) -> None:
    where = place(None, kafka, KAFKA_EVENT_FORMAT="protobuf", KAFKA_ROW_EVENTS="commits")
    server = own_server(**where.settings)
    with Client(server.address) as client:
        client.upload_rows(
            "acme",
            "interactions",
            [{"user_id": "u", "item_id": "i", "interaction_type": "view", "timestamp": "2026-01-01"}],
        )
    (record,) = consume(kafka.bootstrap, where.topic("INTERACTIONS"), 1)
    assert record.headers["content-type"] == "application/protobuf"
    event = event_pb2.CommitEvent.FromString(record.value)
    assert (event.tenant_id, event.table, event.version, event.rows) == ("acme", "interactions", 1, 1)


def test_without_kafka_nothing_waits_but_the_events(
    publishing: Publishing, tenant: str, tmp_path: Path
) -> None:
    server = publishing.server
    publishing.kafka.kill()
    becomes(server, 60, kafka_connected=False, status="degraded")
    with Client(server.address) as client:
        result = client.upload(tenant, "interactions", _file(tmp_path, 20_000))
        assert result.rows_accepted == 20_000
        assert health(server)["kafka_connected"] is False
        eventually(lambda: metric(server, "headrace_relay_lag_versions") >= 1)
    publishing.kafka.restart()
    becomes(server, 60, kafka_connected=True)
    topic = publishing.where.topic("INTERACTIONS")
    records = consume(publishing.kafka.bootstrap, topic, 20_000, tenant=tenant)
    assert {record.id for record in records} == {
        f"{tenant}/{result.upload_id}/{row}" for row in range(20_000)
    }


def test_a_broker_killed_while_events_flow_loses_none(
    publishing: Publishing, tenant: str, tmp_path: Path
) -> None:
    file = _file(tmp_path, 150_000)
    with Client(publishing.server.address) as client:
        uploads = [client.upload(tenant, "interactions", file).upload_id for _ in range(2)]
        publishing.kafka.kill()
        publishing.kafka.restart()
    _all_arrived(publishing, tenant, uploads, 150_000)


def test_a_relay_killed_again_and_again_loses_nothing(
    publishing: Publishing, tenant: str, tmp_path: Path
) -> None:
    file = _file(tmp_path, 100_000)
    uploads = []
    with Client(publishing.server.address) as client:
        for _ in range(3):
            uploads.append(client.upload(tenant, "interactions", file).upload_id)
            os.kill(relay_pid(publishing.server), signal.SIGKILL)
            time.sleep(1.5)
    _all_arrived(publishing, tenant, uploads, 100_000)


def _all_arrived(publishing: Publishing, tenant: str, uploads: list[str], rows: int) -> None:
    """Every row's event is there, at first in order; what came twice has the same id and content."""
    expected = {f"{tenant}/{upload}/{row}" for upload in uploads for row in range(rows)}
    topic = publishing.where.topic("INTERACTIONS")
    records = consume(publishing.kafka.bootstrap, topic, len(expected), seconds=120, tenant=tenant)
    seen: dict[str, bytes] = {}
    order: dict[str, list[tuple[int, int]]] = {}
    for record in records:
        if record.id in seen:
            assert seen[record.id] == record.value
            continue
        seen[record.id] = record.value
        _, upload, row = record.id.split("/")
        order.setdefault(record.key, []).append((uploads.index(upload), int(row)))
    assert seen.keys() == expected
    assert all(places == sorted(places) for places in order.values())


def test_a_store_stopped_in_mid_upload_costs_time_and_no_row(
    mortal_minio: tuple[Minio, Server], tenant: str, tmp_path: Path
) -> None:
    minio, server = mortal_minio
    file = _file(tmp_path, 60_000)
    upload_id = str(uuid.uuid4())
    acked = threading.Event()

    def stop_once(progress: object) -> None:
        if progress.offset > 200_000 and not acked.is_set():  # type: ignore[attr-defined]
            acked.set()
            minio.kill()

    with Client(server.address) as client:
        with pytest.raises(UnavailableError) as caught:
            client.upload(
                tenant, "interactions", file, upload_id=upload_id, on_progress=stop_once, patience_s=0
            )
        assert isinstance(caught.value, StoreUnavailableError)
        becomes(server, 60, s3_connected=False, status="unhealthy")
        with pytest.raises(UnavailableError):
            client.list_tables(tenant)
        minio.restart()
        becomes(server, 60, s3_connected=True, status="healthy")
        result = client.upload(tenant, "interactions", file, upload_id=upload_id)
        assert (result.rows_received, result.rows_accepted) == (60_000, 60_000)
        assert client.read_table(tenant, "interactions").num_rows == 60_000


def test_a_run_outlasts_a_store_that_is_away_for_a_while(
    mortal_minio: tuple[Minio, Server], tenant: str, tmp_path: Path
) -> None:
    minio, server = mortal_minio
    away = threading.Event()
    back = threading.Timer(3, minio.restart)

    def kill_once(_: object) -> None:
        if not away.is_set():
            away.set()
            minio.kill()
            back.start()

    with Client(server.address) as client:
        client.upload(tenant, "interactions", _file(tmp_path, 60_000))
        # The first progress comes with the inputs pinned and the stages before it.
        made = client.compute_features(tenant, on_progress=kill_once)
        back.join()
        assert away.is_set()
        assert made.interactions == 60_000
        becomes(server, 60, s3_connected=True, status="healthy")
        assert client.read_table(tenant, "user_features").num_rows == 97


def test_what_a_full_store_refuses_is_taken_once_there_is_room(
    own_server: Start,
    minio: Minio,
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    store = start_minio(disk)
    try:
        server = own_server(**place(store, None).settings)
        ballast = disk / "ballast"
        with Client(server.address) as client:
            ballast.write_bytes(bytes(psutil.disk_usage(str(disk)).free - (1 << 20)))
            with pytest.raises(HeadraceError) as caught:
                client.upload("acme", "interactions", _file(tmp_path, 200_000), patience_s=0)
            assert caught.value.reason == "STORE_FULL"
            ballast.unlink()
            deadline = time.monotonic() + 30
            while True:
                try:
                    result = client.upload("acme", "interactions", _file(tmp_path, 2_000))
                    break
                except HeadraceError:
                    # MinIO looks at its disk now and then.
                    assert time.monotonic() < deadline
                    time.sleep(1)
            assert client.read_table("acme", "interactions").num_rows == result.rows_accepted == 2_000
    finally:
        store.kill()
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"S3_SECRET_KEY": "wrong-secret-key"}, "S3_SECRET_KEY"),
        ({"S3_ACCESS_KEY": "nobody"}, "S3_ACCESS_KEY"),
        ({"S3_ENDPOINT": "http://127.0.0.1:9"}, "S3_ENDPOINT right"),
        ({"S3_ENDPOINT": "127.0.0.1:9000"}, "http://"),
        ({"S3_BUCKET_RAW": "No_Bucket"}, "No_Bucket"),
        ({"S3_CA_FILE": "/nowhere.pem"}, "S3_CA_FILE"),
    ],
)
def test_a_store_that_cannot_be_used_is_said_at_the_start(
    minio: Minio,
    tmp_path: Path,
    change: dict[str, str],
    says: str,
) -> None:
    ended = refused(tmp_path, **place(minio, None).settings | change)
    assert ended.status == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert minio.secret_key not in ended.stderr
    assert "wrong-secret-key" not in ended.stderr


def test_credentials_are_nowhere_to_be_read(
    mortal_minio: tuple[Minio, Server], tenant: str, tmp_path: Path
) -> None:
    minio, server = mortal_minio
    with Client(server.address) as client:
        client.upload(tenant, "interactions", _file(tmp_path, 100))
        minio.kill()
        with pytest.raises(UnavailableError) as caught:
            client.upload(tenant, "interactions", _file(tmp_path, 100), patience_s=0)
    secret = minio.secret_key
    assert secret not in str(caught.value)
    assert secret not in json.dumps(server.log, default=str)
    family = [
        psutil.Process(server.process.pid),
        *psutil.Process(server.process.pid).children(recursive=True),
    ]
    commands = [process.cmdline() for process in family]
    assert not [command for command in commands if secret in " ".join(command)]
    logs = {
        word.partition("=")[2] for command in commands for word in command if word.startswith("--log_dir=")
    }
    files = [file for folder in logs for file in Path(folder).glob("*.*")]
    assert files
    for file in files:
        assert secret not in file.read_text(errors="ignore")


def test_two_servers_share_a_store_and_the_survivor_publishes_for_both(
    own_server: Start,
    minio: Minio,
    kafka: Kafka,
    tmp_path: Path,
) -> None:
    where = place(minio, kafka)
    one = own_server(data_dir=tmp_path / "one", **where.settings)
    two = own_server(data_dir=tmp_path / "two", **where.settings)
    with Client(one.address) as first, Client(two.address) as second:
        uploads = [
            client.upload("acme", "interactions", _file(tmp_path, 50)).upload_id for client in (first, second)
        ]
        one.process.kill()
        one.process.wait()
        uploads.append(second.upload("acme", "interactions", _file(tmp_path, 50)).upload_id)
        assert second.read_table("acme", "interactions").num_rows == 150
    records = consume(kafka.bootstrap, where.topic("INTERACTIONS"), 150, seconds=90)
    assert {record.id for record in records} == {
        f"acme/{upload}/{row}" for upload in uploads for row in range(50)
    }


def _file(folder: Path, rows: int) -> Path:
    file = folder / f"{rows}.csv"
    file.write_text(HEADER + lines(rows))
    return file
