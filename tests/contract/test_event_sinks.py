"""What every sink of events must do; each runs the same suite. Then what Kafka alone must."""

import asyncio
import base64
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from aiokafka.partitioner import murmur2
from brokers.certificate import write_certificate
from brokers.kafka import Kafka, start_kafka
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    NewTopic,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from harness.watch import eventually

from headrace_server.events import kafka as kafka_module
from headrace_server.events.batch import EventBatch
from headrace_server.events.kafka import KafkaSink
from headrace_server.events.kafka_config import KafkaConfig
from headrace_server.events.local import LocalSink
from headrace_server.events.sink import EventSink, UndeliveredError

pytest_plugins = ["brokers.fixtures"]

PASSWORD = "a-secret-of-this-test"


@dataclass(frozen=True)
class Event:
    """An event as a consumer sees it; `key` and `partition` only from Kafka."""

    id: str
    attributes: dict[str, str]
    value: bytes
    key: str = ""
    partition: int = 0


Read = Callable[[str, int], list[Event]]


@dataclass(frozen=True)
class Place:
    """A sink, and how to read what it took."""

    sink: EventSink
    read: Read
    reopened: Callable[[], EventSink]


def batch_of(numbers: Sequence[int], keys: int = 7, upload: str = "up", size: int = 40) -> EventBatch:
    """Row events with these row numbers; row n has the key n mod `keys`."""
    return EventBatch(
        tenant="acme",
        type="headrace.interaction.v1",
        content_type="application/json",
        keys=pa.array([f"acme/u{number % keys}" for number in numbers], pa.string()),
        ids=pa.array([f"acme/{upload}/{number}" for number in numbers], pa.string()),
        times_us=pa.array([1_769_860_800_000_000 + number for number in numbers], pa.int64()),
        values=pa.array([b'{"n":%d,"pad":"%s"}' % (number, b"x" * size) for number in numbers], pa.binary()),
    )


def read_lines(folder: Path, topic: str) -> list[Event]:
    path = folder / f"{topic}.jsonl"
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        event = json.loads(line)
        encoded = event.pop("data_base64", None)
        data = event.pop("data", None)
        value = (
            json.dumps(data, separators=(",", ":")).encode() if encoded is None else base64.b64decode(encoded)
        )
        found.append(Event(event["id"], event, value))
    return found


def read_topic(bootstrap: str, topic: str, at_least: int, **settings: Any) -> list[Event]:
    """Everything in a topic, partition by partition; waits until that many distinct events are there."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "enable.partition.eof": True,
            "log_level": 0,
        }
        | settings
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            found = _read_once(consumer, topic)
            if len({event.id for event in found}) >= at_least or time.monotonic() > deadline:
                return found
    finally:
        consumer.close()


def _read_once(consumer: Consumer, topic: str) -> list[Event]:
    partitions = list(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    found, left = [], len(partitions)
    while left:
        for message in consumer.consume(10_000, timeout=1):
            if message.error():
                left -= 1
                continue
            given: dict[str, Any] = dict(message.headers() or [])
            headers = {name: value.decode() for name, value in given.items()}
            attributes = {
                name.removeprefix("ce_"): value for name, value in headers.items() if name.startswith("ce_")
            }
            attributes["datacontenttype"] = headers["content-type"]
            key = (message.key() or b"").decode()
            place = message.partition() or 0
            found.append(Event(headers["ce_id"], attributes, message.value() or b"", key, place))
    return found


@pytest.fixture
def topic() -> str:
    return f"topic-{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["local", "kafka"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    made: list[EventSink] = []
    if request.param == "local":
        open_sink: Callable[[], EventSink] = lambda: LocalSink(tmp_path / "events")  # noqa: E731
        read: Read = lambda topic, _: read_lines(tmp_path / "events", topic)  # noqa: E731
    else:
        bootstrap = request.getfixturevalue("kafka").bootstrap
        open_sink = lambda: KafkaSink(KafkaConfig(bootstrap))  # noqa: E731
        read = lambda topic, at_least: read_topic(bootstrap, topic, at_least)  # noqa: E731

    def reopened() -> EventSink:
        made.append(open_sink())
        return made[-1]

    yield Place(reopened(), read, reopened)
    for sink in made:
        await sink.close()


async def test_all_events_arrive_and_those_of_a_key_in_order(place: Place, topic: str) -> None:
    for start in range(0, 40_000, 10_000):
        await place.sink.publish(topic, batch_of(range(start, start + 10_000)))
    found = place.read(topic, 40_000)
    numbers = [int(event.id.rsplit("/", 1)[1]) for event in found]
    assert sorted(numbers) == list(range(40_000))
    for key in range(7):
        of_key = [number for number in numbers if number % 7 == key]
        assert of_key == sorted(of_key)
    assert all(json.loads(event.value)["n"] == number for event, number in zip(found, numbers, strict=True))


async def test_attributes_are_those_of_cloud_events(place: Place, topic: str) -> None:
    await place.sink.publish(topic, batch_of([5]))
    (event,) = place.read(topic, 1)
    assert event.attributes == {
        "specversion": "1.0",
        "id": "acme/up/5",
        "source": "/headrace/acme",
        "type": "headrace.interaction.v1",
        "time": "2026-01-31T12:00:00.000005Z",
        "tenantid": "acme",
        "datacontenttype": "application/json",
    }


async def test_payloads_that_are_not_json_arrive_as_they_are(place: Place, topic: str) -> None:
    values = [b"\x00\xff\n\"'", b"", bytes(range(256))]
    events = replace(
        batch_of(range(3)), content_type="application/protobuf", values=pa.array(values, pa.binary())
    )
    await place.sink.publish(topic, events)
    found = {event.id: event for event in place.read(topic, 3)}
    assert [found[f"acme/up/{number}"].value for number in range(3)] == values
    assert found["acme/up/0"].attributes["datacontenttype"] == "application/protobuf"


async def test_a_replay_gives_the_same_ids_and_bytes(place: Place, topic: str) -> None:
    await place.sink.publish(topic, batch_of(range(100)))
    await place.reopened().publish(topic, batch_of(range(50, 150)))
    found = place.read(topic, 150)
    assert {event.id for event in found} == {f"acme/up/{number}" for number in range(150)}
    by_id: dict[str, set[bytes]] = {}
    for event in found:
        by_id.setdefault(event.id, set()).add(event.value)
    assert all(len(values) == 1 for values in by_id.values())


async def test_no_events_are_no_error(place: Place, topic: str) -> None:
    await place.sink.publish(topic, batch_of([]))
    await place.sink.publish(topic, batch_of([1]))
    assert len(place.read(topic, 1)) == 1


async def test_a_sink_that_takes_events_is_connected(place: Place, topic: str) -> None:
    assert await place.sink.connected()
    await place.sink.publish(topic, batch_of([1]))
    assert await place.sink.connected()


async def test_topics_are_apart(place: Place, topic: str) -> None:
    await place.sink.publish(topic, batch_of([1]))
    await place.sink.publish(f"{topic}-2", batch_of([2]))
    assert [event.id for event in place.read(topic, 1)] == ["acme/up/1"]
    assert [event.id for event in place.read(f"{topic}-2", 1)] == ["acme/up/2"]


# --- the local log ---


async def test_a_replay_after_a_crash_is_written_once(tmp_path: Path) -> None:
    await LocalSink(tmp_path).publish("t", batch_of(range(10)))
    path = tmp_path / "t.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:7]) + lines[7][:-20])
    sink = LocalSink(tmp_path)
    await sink.publish("t", batch_of(range(5, 3000)))
    await sink.publish("t", batch_of(range(2990, 3010)))
    assert [event.id for event in read_lines(tmp_path, "t")] == [
        f"acme/up/{number}" for number in range(3010)
    ]


async def test_commit_events_are_known_again_by_table_and_version(tmp_path: Path) -> None:
    def commits(*ids: str) -> EventBatch:
        return replace(batch_of(range(len(ids))), ids=pa.array(ids, pa.string()))

    await LocalSink(tmp_path).publish("t", commits("acme/items@1", "acme/items@2", "bolt/items@1"))
    await LocalSink(tmp_path).publish(
        "t", commits("acme/items@2", "acme/items@3", "bolt/items@2", "acme/up/1")
    )
    ids = [event.id for event in read_lines(tmp_path, "t")]
    assert ids == [
        "acme/items@1",
        "acme/items@2",
        "bolt/items@1",
        "acme/items@3",
        "bolt/items@2",
        "acme/up/1",
    ]


async def test_a_log_that_cannot_be_written_is_an_undelivered_event(tmp_path: Path) -> None:
    sink = LocalSink(tmp_path)
    (tmp_path / "t.jsonl").mkdir()
    with pytest.raises(UndeliveredError, match=r"t\.jsonl"):
        await sink.publish("t", batch_of([1]))
    (tmp_path / "t.jsonl").rmdir()
    await sink.publish("t", batch_of([1]))
    assert len(read_lines(tmp_path, "t")) == 1


async def test_a_log_without_its_folder_is_not_connected(tmp_path: Path) -> None:
    sink = LocalSink(tmp_path / "events")
    (tmp_path / "events").rmdir()
    assert not await sink.connected()


# --- Kafka ---


@pytest.fixture
def own_kafka(kafka: Kafka, tmp_path: Path) -> Iterator[Kafka]:
    """A broker that a test may stop."""
    started = start_kafka(tmp_path / "kafka")
    yield started
    started.kill()


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[KafkaConfig], KafkaSink]]:
    """Makes sinks that end with the test."""
    made: list[KafkaSink] = []

    def make(config: KafkaConfig) -> KafkaSink:
        made.append(KafkaSink(config))
        return made[-1]

    yield make
    for sink in made:
        await sink.close()


Opened = Callable[[KafkaConfig], KafkaSink]


async def insist(sink: KafkaSink, topic: str, events: EventBatch) -> int:
    """Publishes again until it is done; how often it failed."""
    failures, deadline = 0, time.monotonic() + 150
    while True:
        try:
            await sink.publish(topic, events)
        except UndeliveredError:
            failures += 1
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        else:
            return failures


def make_topic(kafka: Kafka, topic: NewTopic) -> None:
    """Creates a topic and waits until brokers know it: the controller answers before they do."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([topic])[topic.topic].result(30)
    eventually(lambda: topic.topic in admin.list_topics(timeout=10).topics)


async def test_a_missing_topic_is_created_as_configured(kafka: Kafka, topic: str, opened: Opened) -> None:
    await opened(KafkaConfig(kafka.bootstrap, partitions=3)).publish(topic, batch_of([1]))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    assert len(admin.list_topics(topic, timeout=10).topics[topic].partitions) == 3


async def test_a_topic_that_exists_is_used_as_it_is(kafka: Kafka, topic: str, opened: Opened) -> None:
    make_topic(kafka, NewTopic(topic, 5, 1))
    await opened(KafkaConfig(kafka.bootstrap, partitions=3, create_topics=False)).publish(
        topic, batch_of(range(100), keys=50)
    )
    found = read_topic(kafka.bootstrap, topic, 100)
    assert all(event.partition == (murmur2(event.key.encode()) & 0x7FFFFFFF) % 5 for event in found)
    assert len({event.partition for event in found}) == 5


async def test_a_missing_topic_that_may_not_be_created_is_named(
    kafka: Kafka, topic: str, opened: Opened
) -> None:
    sink = opened(KafkaConfig(kafka.bootstrap, create_topics=False))
    with pytest.raises(UndeliveredError, match=rf"topic '{topic}' is missing .* KAFKA_CREATE_TOPICS"):
        await sink.publish(topic, batch_of([1]))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    assert topic not in admin.list_topics(timeout=10).topics
    make_topic(kafka, NewTopic(topic, 2, 1))
    await sink.publish(topic, batch_of([1]))


async def test_a_topic_that_cannot_be_created_is_named(kafka: Kafka, topic: str, opened: Opened) -> None:
    sink = opened(KafkaConfig(kafka.bootstrap, replication_factor=3))
    with pytest.raises(UndeliveredError, match=rf"topic '{topic}' .*cannot be created .*[Rr]eplication"):
        await sink.publish(topic, batch_of([1]))


async def test_a_topic_that_takes_smaller_batches_is_named_with_the_remedy(
    kafka: Kafka, topic: str, opened: Opened
) -> None:
    make_topic(kafka, NewTopic(topic, 1, 1, config={"max.message.bytes": "2000"}))
    with pytest.raises(UndeliveredError, match=r"max\.message\.bytes to 1048588 or more"):
        await opened(KafkaConfig(kafka.bootstrap, compression="none")).publish(topic, batch_of(range(1000)))


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_brokers_and_other_clients_read_every_codec(
    kafka: Kafka, topic: str, opened: Opened, codec: Any
) -> None:
    sink = opened(KafkaConfig(kafka.bootstrap, compression=codec))
    await sink.publish(topic, batch_of(range(30_000), size=200))
    assert len({event.id for event in read_topic(kafka.bootstrap, topic, 30_000)}) == 30_000


async def test_an_event_too_large_for_any_batch_is_named(kafka: Kafka, topic: str, opened: Opened) -> None:
    sink = opened(KafkaConfig(kafka.bootstrap, compression="none"))
    with pytest.raises(UndeliveredError, match="'acme/up/1' has a payload of"):
        await sink.publish(topic, batch_of([1], size=2_000_000))
    await sink.publish(topic, batch_of([2]))


async def test_a_publish_that_was_cancelled_leaves_the_sink_usable(
    kafka: Kafka, topic: str, opened: Opened
) -> None:
    sink = opened(KafkaConfig(kafka.bootstrap))
    for pause in (0.0, 0.02, 0.1):
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await sink.publish(topic, batch_of(range(60_000), size=300))
    await sink.publish(topic, batch_of(range(60_000), size=300))
    assert len({event.id for event in read_topic(kafka.bootstrap, topic, 60_000)}) == 60_000


async def test_a_producer_that_has_sent_enough_is_replaced(
    kafka: Kafka, topic: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_module, "MAX_EVENTS", 100)
    sink = opened(KafkaConfig(kafka.bootstrap))
    for start in range(0, 1000, 60):
        await sink.publish(topic, batch_of(range(start, start + 60)))
    assert len(read_topic(kafka.bootstrap, topic, 1020)) == 1020


async def test_without_a_broker_publish_and_connected_say_so_soon(topic: str, opened: Opened) -> None:
    sink = opened(KafkaConfig("127.0.0.1:1"))
    assert not await sink.connected()
    with pytest.raises(UndeliveredError, match=r"127\.0\.0\.1:1.*(refused|Unable|Connect)"):
        await sink.publish(topic, batch_of([1]))


async def test_a_broker_that_freezes_is_given_up_and_used_again(
    own_kafka: Kafka, topic: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_module, "DELIVERY_TIMEOUT_SECONDS", 3.0)
    sink = opened(KafkaConfig(own_kafka.bootstrap))
    await sink.publish(topic, batch_of(range(10)))
    assert await sink.connected()
    own_kafka.pause()
    try:
        # An answer that was under way when the broker froze may still come.
        while await sink.connected():
            await asyncio.sleep(0.05)
        with pytest.raises(UndeliveredError, match="no acknowledgement for 3 s"):
            await sink.publish(topic, batch_of(range(10, 100_000)))
    finally:
        own_kafka.resume()
    await insist(sink, topic, batch_of(range(10, 100_000)))
    assert await sink.connected()
    assert len({event.id for event in read_topic(own_kafka.bootstrap, topic, 100_000)}) == 100_000


@pytest.mark.timeout(400)
@pytest.mark.parametrize("timeout", [120.0, pytest.param(1.0, marks=pytest.mark.slow)])
async def test_a_broker_killed_while_events_flow_loses_none_and_keeps_their_order(
    own_kafka: Kafka, topic: str, opened: Opened, monkeypatch: pytest.MonkeyPatch, timeout: float
) -> None:
    monkeypatch.setattr(kafka_module, "DELIVERY_TIMEOUT_SECONDS", timeout)
    sink = opened(KafkaConfig(own_kafka.bootstrap))
    batches = [
        batch_of(range(start, start + 20_000), keys=50, size=200) for start in range(0, 600_000, 20_000)
    ]

    def kill_and_restart() -> None:
        for _ in range(2):
            time.sleep(0.3)
            own_kafka.kill()
            time.sleep(0.2)
            own_kafka.start()

    failures = published = 0
    killer: asyncio.Task[None] | None = None
    for batch in batches:
        failures += await insist(sink, topic, batch)
        published += len(batch)
        if killer is None:
            killer = asyncio.create_task(asyncio.to_thread(kill_and_restart))
        elif killer.done():
            break
    assert killer is not None
    await killer
    assert await sink.connected()
    found = read_topic(own_kafka.bootstrap, topic, published)
    first: dict[str, None] = dict.fromkeys(event.id for event in found)
    assert len(first) == published
    numbers = [int(name.rsplit("/", 1)[1]) for name in first]
    for key in range(50):
        of_key = [each for each in numbers if each % 50 == key]
        assert of_key == sorted(of_key)
    if timeout > 100:
        # The same producer goes on where it was: nothing comes twice.
        assert (failures, len(found)) == (0, published)


MECHANISMS = {
    "SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256,
    "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512,
}


@pytest.fixture(scope="module")
def secure_kafka(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kafka, Path]]:
    """A broker with TLS and passwords, and the file of its authority."""
    folder = tmp_path_factory.mktemp("secure")
    certificate, key, authority = folder / "server.pem", folder / "server.key", folder / "ca.pem"
    write_certificate(certificate, key, authority)
    started = start_kafka(
        folder / "kafka",
        settings={
            "listener.security.protocol.map": "CLIENT:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.client.plain.sasl.jaas.config": (
                "org.apache.kafka.common.security.plain.PlainLoginModule required "
                f'user_headrace="{PASSWORD}";'
            ),
            **{
                f"listener.name.client.{mechanism.lower()}.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                )
                for mechanism in MECHANISMS
            },
            "listener.name.client.ssl.keystore.type": "PEM",
            "listener.name.client.ssl.keystore.certificate.chain": certificate.read_text(),
            "listener.name.client.ssl.keystore.key": key.read_text(),
        },
    )
    admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{started.internal_port}"})
    for mechanism in MECHANISMS.values():
        info = ScramCredentialInfo(mechanism, 4096)
        change = UserScramCredentialUpsertion("headrace", info, PASSWORD.encode())
        admin.alter_user_scram_credentials([change])["headrace"].result(30)
    yield started, authority
    started.kill()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_passwords_over_tls(
    secure_kafka: tuple[Kafka, Path], topic: str, opened: Opened, mechanism: Any
) -> None:
    broker, authority = secure_kafka
    config = KafkaConfig(
        broker.bootstrap,
        security_protocol="SASL_SSL",
        sasl_mechanism=mechanism,
        sasl_username="headrace",
        sasl_password=PASSWORD,
        ca_file=str(authority),
    )
    assert PASSWORD not in repr(config)
    sink = opened(config)
    assert await sink.connected()
    await sink.publish(topic, batch_of(range(100)))
    assert len(read_topic(f"127.0.0.1:{broker.internal_port}", topic, 100)) == 100


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_a_wrong_password_is_said_without_it(
    secure_kafka: tuple[Kafka, Path],
    topic: str,
    opened: Opened,
    mechanism: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    broker, authority = secure_kafka
    wrong = f"{PASSWORD}-not"
    sink = opened(
        KafkaConfig(
            broker.bootstrap,
            security_protocol="SASL_SSL",
            sasl_mechanism=mechanism,
            sasl_username="headrace",
            sasl_password=wrong,
            ca_file=str(authority),
        )
    )
    assert not await sink.connected()
    with pytest.raises(UndeliveredError, match=r"[Aa]uthentication failed") as caught:
        await sink.publish(topic, batch_of([1]))
    assert PASSWORD not in f"{caught.value!r} {caplog.text}"


async def test_a_broker_nobody_vouches_for_is_not_spoken_to(
    secure_kafka: tuple[Kafka, Path], topic: str, opened: Opened
) -> None:
    broker, _ = secure_kafka
    sink = opened(KafkaConfig(broker.bootstrap, security_protocol="SASL_SSL", sasl_password=PASSWORD))
    assert not await sink.connected()
    with pytest.raises(UndeliveredError, match=r"certificate|CERTIFICATE"):
        await sink.publish(topic, batch_of([1]))
