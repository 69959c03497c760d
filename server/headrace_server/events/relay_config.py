"""The configuration of the relay's process, handed over at its start.

It goes through a pipe: arguments and environments of a process can be read by others.
"""

import os
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path

from headrace_compute.model import StoreConfig
from headrace_server.events.kafka_config import KafkaConfig
from headrace_server.events.options import EventOptions

_SIZE = struct.Struct("<I")


@dataclass(frozen=True)
class RelayConfig:
    """What a relay needs to know of the server that starts it.

    Attributes:
        folder: Where the local event log lies, if there is no Kafka.
        owner: Names this server where it holds leases.
    """

    store: StoreConfig
    kafka: KafkaConfig | None
    folder: Path
    options: EventOptions
    owner: str
    service_name: str
    log_level: str


def write_relay_config(config: RelayConfig) -> bytes:
    """The bytes that `read_relay_config` reads."""
    body = pickle.dumps(config)
    return _SIZE.pack(len(body)) + body


def read_relay_config(descriptor: int) -> RelayConfig:
    """Reads just the configuration from the start of a pipe; what follows stays there.

    Raises:
        EOFError: The pipe ended before.
    """
    (size,) = _SIZE.unpack(_read(descriptor, _SIZE.size))
    config = pickle.loads(_read(descriptor, size))
    if not isinstance(config, RelayConfig):
        raise TypeError(f"what came is a {type(config).__name__}, not a RelayConfig")
    return config


def _read(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (piece := os.read(descriptor, size - len(data))):
            raise EOFError("the server ended before it said what to relay")
        data += piece
    return data
