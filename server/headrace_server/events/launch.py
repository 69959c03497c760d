"""What the relay's process is told at its start.

It goes through a pipe: arguments and environments of a process can be read by others.
"""

import os
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path

from headrace_compute.model import StoreConfig
from headrace_server.events.kafka_config import KafkaConfig
from headrace_server.events.style import Style

_SIZE = struct.Struct("<I")


@dataclass(frozen=True)
class Launch:
    """A relay's choices.

    Attributes:
        folder: Where the local event log lies, if there is no Kafka.
        owner: Names this server where it holds leases.
    """

    store: StoreConfig
    kafka: KafkaConfig | None
    folder: Path
    style: Style
    owner: str
    service_name: str
    log_level: str


def write_launch(launch: Launch) -> bytes:
    """The bytes that `read_launch` reads."""
    body = pickle.dumps(launch)
    return _SIZE.pack(len(body)) + body


def read_launch(descriptor: int) -> Launch:
    """Reads just the launch from the start of a pipe; what follows stays there.

    Raises:
        EOFError: The pipe ended before.
    """
    (size,) = _SIZE.unpack(_read(descriptor, _SIZE.size))
    launch = pickle.loads(_read(descriptor, size))
    if not isinstance(launch, Launch):
        raise TypeError(f"what came is a {type(launch).__name__}, not a Launch")
    return launch


def _read(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (piece := os.read(descriptor, size - len(data))):
            raise EOFError("the server ended before it said what to relay")
        data += piece
    return data
