"""Kafka 4: one broker that is its own controller, from the jars Maven fetches."""

import base64
import logging
import os
import re
import shutil
import socket
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from xml.etree import ElementTree

from brokers.cache import cached
from brokers.errors import BrokerStartError, BrokerUnavailableError
from brokers.server import ServerProcess, free_ports
from brokers.tools import find_tool, run_tool

POM = Path(__file__).with_name("kafka-pom.xml")
LOGGING = Path(__file__).with_name("kafka-log4j2.xml")
JAVA = 17
JAVA_REMEDY = (
    f"Install a Java runtime, {JAVA} or newer (package openjdk-{JAVA}-jre-headless), or set JAVA_HOME."
)
MAVEN_REMEDY = (
    "Kafka's jars are fetched once: install Maven (package maven) and let it reach a Maven repository."
)
FORMAT_REMEDY = "Start it in an empty folder, and check the settings given."

# Small: a test's topics need little memory, and the collector with the smallest footprint will do.
JVM_OPTIONS = ("-Xmx512m", "-Xms256m", "-XX:+UseSerialGC", "-Djava.awt.headless=true")

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Kafka(ServerProcess):
    """A running Kafka broker."""

    bootstrap: str
    """`127.0.0.1:PORT` of the listener CLIENT."""
    internal_port: int
    """The listener INTERNAL, always plain text: the broker talks to itself there, and we ask it how it is."""

    def answers(self) -> bool:
        """Whether it serves clients now: its metadata name a live broker. Waits a second at most."""
        try:
            with socket.create_connection(("127.0.0.1", self.internal_port), timeout=1) as connection:
                connection.sendall(_METADATA_REQUEST)
                # Size, correlation id, number of brokers. An open port is not enough: it opens before the
                # controller lets the broker in, and until then clients see a cluster of none.
                answer = connection.recv(12)
        except OSError:
            return False
        return len(answer) == 12 and int(struct.unpack(">iii", answer)[2]) > 0


def _metadata_request() -> bytes:
    # Metadata, key 3, version 1: header (key, version, correlation id, client id), then a list of no topics.
    client = b"brokers"
    body = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    return struct.pack(">i", len(body)) + body


_METADATA_REQUEST = _metadata_request()


def start_kafka(
    folder: Path, *, port: int = 0, settings: Mapping[str, str] = NO_SETTINGS, outlive: bool = False
) -> Kafka:
    """Starts a broker on 127.0.0.1 with its data and log in `folder`; returns once it serves.

    Port 0 is any free one. A folder used before keeps its data. `settings` add to `server.properties` or
    replace what is there; clients' security is that of the listener CLIENT, with SASL for example
    `listener.security.protocol.map=CLIENT:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT`.
    Raises BrokerUnavailableError without Java or jars, BrokerStartError if it does not start.
    """
    java = [_java(), "-cp", f"{kafka_jars()}/*", "-Dlog4j2.configurationFile=log4j2.xml", *JVM_OPTIONS]
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    # It runs in `folder` and its paths are relative: property files and path lists dislike odd names.
    shutil.copyfile(LOGGING, folder / "log4j2.xml")
    client, internal, controller = [port, *free_ports(2)] if port else free_ports(3)
    properties = {**_properties(client, internal, controller), **settings}
    _write_properties(folder / "server.properties", properties)
    if not (folder / "data" / "meta.properties").exists():
        _format(java, folder)
    server = Kafka(
        folder=folder,
        log=folder / "kafka.log",
        ports=(client, internal, controller),
        command=[*java, "kafka.Kafka", "server.properties"],
        environment=dict(os.environ),
        outlive=outlive,
        bootstrap=f"127.0.0.1:{client}",
        internal_port=internal,
    )
    server.start()
    return server


def kafka_jars() -> Path:
    """Returns the folder of Kafka's jars, fetched first if it is not cached.

    Raises BrokerUnavailableError without Maven or network.
    """
    version = ElementTree.parse(POM).findtext("{*}properties/{*}kafka.version")
    return cached(f"kafka-{version}", _fetch)


def _fetch(scratch: Path) -> Path:
    maven = find_tool("mvn", MAVEN_REMEDY)
    logger.info("fetching Kafka's jars; this happens once")
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={scratch / 'jars'}"]
    run_tool([maven, *goal, "-q", "-B", "-Dstyle.color=never", "-f", str(POM)], scratch, MAVEN_REMEDY)
    return scratch / "jars"


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else find_tool("java", JAVA_REMEDY)
    if not os.access(java, os.X_OK):
        raise BrokerUnavailableError(f"JAVA_HOME is {home}, where there is no bin/java", JAVA_REMEDY)
    found = re.search(r'version "((\d+)[^"]*)"', run_tool([java, "-version"], Path("/"), JAVA_REMEDY))
    if found is None or int(found[2]) < JAVA:
        version = found[1] if found else "of an unknown version"
        raise BrokerUnavailableError(f"{java} is Java {version}, and Kafka needs {JAVA}", JAVA_REMEDY)
    return java


def _format(java: list[str], folder: Path) -> None:
    tool = ["kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", _cluster_id()]
    try:
        run_tool([*java, *tool, "--config", "server.properties"], folder, FORMAT_REMEDY)
    except BrokerUnavailableError as error:  # the machine has what it takes: this is no reason to skip a test
        raise BrokerStartError(f"Kafka's data folder could not be made: {error}") from None


def _cluster_id() -> str:
    """A random UUID in Kafka's spelling: 22 characters of URL-safe base 64, the first not a dash."""
    spelled = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return _cluster_id() if spelled.startswith("-") else spelled


def _properties(client: int, internal: int, controller: int) -> dict[str, str]:
    ports = {"CLIENT": client, "INTERNAL": internal, "CONTROLLER": controller}
    alone = {
        f"{prefix}.{name}": "1"
        for prefix, names in {
            "offsets.topic": ("replication.factor", "num.partitions"),
            "transaction.state.log": ("replication.factor", "min.isr", "num.partitions"),
            "share.coordinator.state.topic": ("replication.factor", "min.isr", "num.partitions"),
        }.items()
        for name in names
    }
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in ports),
        "inter.broker.listener.name": "INTERNAL",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "log.dirs": "data",
        **alone,
        # A group of tests' consumers is complete when its first member is there.
        "group.initial.rebalance.delay.ms": "0",
        # A broker that was killed is let in when the session of its former life is over: 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # The default takes a quarter of the heap for topics that are never compacted here.
        "log.cleaner.dedupe.buffer.size": str(16 << 20),
    }


def _write_properties(file: Path, properties: Mapping[str, str]) -> None:
    # Only a backslash and a line end mean something in a value. The settings of a test may hold passwords.
    escaped = {name: value.replace("\\", "\\\\").replace("\n", "\\n") for name, value in properties.items()}
    file.touch(mode=0o600)
    file.write_text("".join(f"{name}={value}\n" for name, value in escaped.items()), encoding="ascii")
