"""Events to Kafka: whole batches, encoded here, through aiokafka's idempotent producer.

A batch is encoded in a thread while earlier ones are on their way. Each partition has
one batch on its way at a time and gets the next one only when that is acknowledged, so
no batch can overtake one that failed. A producer that failed is never used again: aiokafka
leaves it unable to send after some errors, and would go on sending after others.
"""

import asyncio
import logging
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NoError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import CreateTopicsRequest
from aiokafka.protocol.api import Request
from aiokafka.protocol.metadata import MetadataRequest

from headrace_server.events.batch import EventBatch
from headrace_server.events.kafka_config import KafkaConfig
from headrace_server.events.record_batch import BATCH_BYTES, EncodedBatch, Encoder, RecordTooLargeError
from headrace_server.events.sink import UndeliveredError

__all__ = ["KafkaConfig", "KafkaSink"]

DELIVERY_TIMEOUT_SECONDS = 30.0
"""How long a publish may go without an acknowledgement; aiokafka itself would wait for ever."""

REQUEST_SECONDS = 20.0
PROBE_SECONDS = 1.5
END_SECONDS = 0.4
"""How long a step of ending a client may take: with a probe, less than the two seconds of `connected`."""

AHEAD_BATCHES = 2
"""Batches that a partition may have encoded and not sent."""

MAX_EVENTS = 2_000_000_000
"""Events of one producer at most: the sequence numbers of a partition have 31 bits, and
aiokafka, which should then begin again at 0, goes on with negative ones."""


class KafkaSink:
    """An EventSink that writes to Kafka."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._encoder = Encoder(config.compression)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._producer: AIOKafkaProducer | None = None
        self._topics: set[str] = set()
        self._sent = 0
        self._probe: AIOKafkaClient | None = None
        self._log_capture = _capture_log()

    async def publish(self, topic: str, events: EventBatch) -> None:
        """See EventSink."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT_SECONDS) as timeout:
                await self._deliver(await self._ready(topic), topic, events, timeout)
        except (KafkaError, OSError, RecordTooLargeError) as error:
            await self._discard()
            late = f"no acknowledgement for {DELIVERY_TIMEOUT_SECONDS:g} s"
            raise UndeliveredError(
                f"events for topic {topic!r} may not have reached Kafka at {self._config.bootstrap_servers}: "
                f"{late if timeout.expired() else _reason(error)}{self._log_capture.since(started)}"
            ) from error
        except BaseException:
            await self._discard()
            raise
        self._sent += len(events)

    async def connected(self) -> bool:
        """See EventSink. It has a connection of its own, which no batch can hold up."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                if self._probe is not None and await _answers(self._probe):
                    return True
                await self._drop_probe()
                self._probe = AIOKafkaClient(**self._connection())
                await self._probe.bootstrap()
                return await _answers(self._probe)
        except (KafkaError, OSError, ValueError, AssertionError):
            await self._drop_probe()
            return False

    async def close(self) -> None:
        """See EventSink."""
        await self._discard()
        await self._drop_probe()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _deliver(
        self, producer: AIOKafkaProducer, topic: str, events: EventBatch, timeout: asyncio.Timeout
    ) -> None:
        """Returns when all are acknowledged; encodes ahead of what is being sent."""
        loop = asyncio.get_running_loop()
        batches = self._encoder.batches(events, len(await producer.partitions_for(topic)))
        queues: dict[int, asyncio.Queue[EncodedBatch | None]] = {}

        async def send(partition: int) -> None:
            while (batch := await queues[partition].get()) is not None:
                await (await producer.send_batch(batch, topic, partition=partition))
                timeout.reschedule(loop.time() + DELIVERY_TIMEOUT_SECONDS)

        try:
            async with asyncio.TaskGroup() as tasks:
                while (item := await loop.run_in_executor(self._thread, next, batches, None)) is not None:
                    partition, batch = item
                    if partition not in queues:
                        queues[partition] = asyncio.Queue(AHEAD_BATCHES)
                        tasks.create_task(send(partition))
                    await queues[partition].put(batch)
                for queue in queues.values():
                    await queue.put(None)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group

    async def _ready(self, topic: str) -> AIOKafkaProducer:
        """A producer that works, and a topic that exists."""
        if self._sent >= MAX_EVENTS:
            await self._discard()
        if self._producer is None:
            self._producer = AIOKafkaProducer(**self._connection(), acks="all", enable_idempotence=True)
            try:
                await self._producer.start()
            except (ValueError, AssertionError) as error:
                # A broker that gets its part of a SASL handshake wrong comes out as these.
                raise KafkaConnectionError(f"the handshake failed: {error}") from error
        if topic not in self._topics:
            await self._prepare(self._producer.client, topic)
            self._topics.add(topic)
        return self._producer

    async def _prepare(self, client: AIOKafkaClient, topic: str) -> None:
        """Creates the topic if it is missing."""
        answer = await _ask(client, MetadataRequest([topic], allow_auto_topic_creation=False))
        error = for_code(answer.topics[0][0])
        if error is not UnknownTopicOrPartitionError:
            if error not in (NoError, LeaderNotAvailableError):
                raise error()
            return
        if not self._config.create_topics:
            raise UndeliveredError(
                f"topic {topic!r} is missing in Kafka at {self._config.bootstrap_servers} and may not be "
                f"created: create it there, or set KAFKA_CREATE_TOPICS=true"
            )
        await self._create(client, topic)

    async def _create(self, client: AIOKafkaClient, topic: str) -> None:
        partitions, copies = self._config.partitions, self._config.replication_factor
        wanted: Any = (topic, partitions, copies, [], [])
        request = CreateTopicsRequest([wanted], timeout=int(REQUEST_SECONDS * 1000), validate_only=False)
        answer = await _ask(client, request, controller=True)
        _, code, message = answer.topic_errors[0]
        if for_code(code) not in (NoError, TopicAlreadyExistsError):
            raise UndeliveredError(
                f"topic {topic!r} is missing in Kafka at {self._config.bootstrap_servers} and cannot be "
                f"created with {partitions} partitions and replication factor {copies} "
                f"(-1 = the broker's default): {message or for_code(code).__name__}; create it there"
            )

    def _connection(self) -> dict[str, Any]:
        """What each client is made with."""
        config = self._config
        encrypted = config.security_protocol in ("SSL", "SASL_SSL")
        return {
            "bootstrap_servers": config.bootstrap_servers,
            "client_id": config.client_id,
            "request_timeout_ms": int(REQUEST_SECONDS * 1000),
            "security_protocol": config.security_protocol,
            "ssl_context": ssl.create_default_context(cafile=config.ca_file or None) if encrypted else None,
            "sasl_mechanism": config.sasl_mechanism,
            "sasl_plain_username": config.sasl_username,
            "sasl_plain_password": config.sasl_password,
        }

    async def _discard(self) -> None:
        """Ends the producer at once; the next publish makes another."""
        producer, self._producer, self._sent = self._producer, None, 0
        self._topics.clear()
        if producer is None:
            return
        _cut(producer.client)
        # Its `stop` would first wait for what it still has to send, which may be for ever.
        sender = producer._sender.sender_task  # noqa: SLF001
        if sender is not None:
            # Cancelled once it waits for its requests, cancelled twice it cancels those.
            for _ in range(2):
                sender.cancel()
                await asyncio.wait([sender], timeout=END_SECONDS)
        await _end(producer.client)
        producer._closed = True  # noqa: SLF001, else it warns that it was left open

    async def _drop_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            await _end(probe)


def _cut(client: AIOKafkaClient) -> None:
    """Cuts a client's connections: closing them would first wait until all is sent that is to be."""
    for connection in client._conns.values():  # noqa: SLF001
        if (writer := connection._writer) is not None:  # noqa: SLF001
            writer.transport.abort()


async def _end(client: AIOKafkaClient) -> None:
    """Closes a client within a time limit, however broken it is; further errors are ignored."""
    _cut(client)
    closing = asyncio.create_task(client.close())
    closing.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait([closing], timeout=END_SECONDS)
    closing.cancel()


async def _ask(client: AIOKafkaClient, request: Request[Any], *, controller: bool = False) -> Any:
    """The answer to a request, of the controller or any broker."""
    known = client.cluster.controller if controller else None
    node = known.nodeId if known else client.get_random_node()
    if node is None:
        raise KafkaConnectionError("the cluster has no live broker")
    return await client.send(node, request)


async def _answers(client: AIOKafkaClient) -> bool:
    """Whether a broker answers and knows of live brokers; asks for no topic."""
    return bool((await _ask(client, MetadataRequest([]))).brokers)


def _reason(error: Exception) -> str:
    if isinstance(error, MessageSizeTooLargeError):
        return (
            f"a batch is larger than the topic takes; set its max.message.bytes to {BATCH_BYTES + 12} or more"
        )
    return str(error) or type(error).__name__


class _LogCapture(logging.Handler):
    """Keeps the newest warning of aiokafka, which logs causes and raises without them.

    Its other messages, one for each attempt to reconnect, would drown the log, and at
    DEBUG they hold passwords.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._at = 0.0
        self._message = ""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self._at, self._message = time.monotonic(), record.getMessage()

    def since(self, started: float) -> str:
        """What to add to an error message."""
        return f"; its client says: {self._message}" if self._at >= started else ""


_LOG_CAPTURE = _LogCapture()


def _capture_log() -> _LogCapture:
    """The one handler of aiokafka's log in this process, in its place."""
    logger = logging.getLogger("aiokafka")
    logger.handlers, logger.propagate = [_LOG_CAPTURE], False
    logger.setLevel(logging.WARNING)
    return _LOG_CAPTURE
