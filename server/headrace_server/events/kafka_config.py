"""How to reach a Kafka cluster, and how to write to it."""

from dataclasses import dataclass, field
from typing import Literal

from headrace_server.events.compression import Compression

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True)
class KafkaConfig:
    """A cluster, and how to write to it.

    Attributes:
        bootstrap_servers: `host:port` of one or more brokers, with commas between.
        partitions: Of a topic that is created; those of one that exists stay.
        replication_factor: Of a topic that is created; -1 = the broker's default.
        create_topics: Whether missing topics are created.
        ca_file: Certificates to trust, PEM; empty = those of the system.
    """

    bootstrap_servers: str
    client_id: str = "headrace"
    compression: Compression = "lz4"
    partitions: int = 6
    replication_factor: int = -1
    create_topics: bool = True
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism = "PLAIN"
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    ca_file: str = ""
