"""What `python -m brokers start` leaves for `stop` and `status`, and for those who use the brokers."""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from brokers.errors import BrokerError
from brokers.identity import ProcessIdentity
from brokers.kafka import Kafka
from brokers.minio import Minio

FOLDER_PREFIX = "headrace-brokers-"


@dataclass(frozen=True)
class State:
    """Brokers that were started, and may have ended since; `state.json` in `.brokers`."""

    folder: Path
    temporary: bool
    """Whether the folder is ours to remove."""
    addresses: dict[str, str]
    """By broker, MinIO and Kafka."""
    processes: dict[str, ProcessIdentity]

    def running(self) -> dict[str, bool]:
        """Of each broker, whether it runs."""
        return {name: process.runs() for name, process in self.processes.items()}

    def remove_data(self) -> None:
        """Removes the temporary folder; leaves one the user named."""
        # The prefix guards against a state file that was edited: what we remove, we named.
        if self.temporary and self.folder.name.startswith(FOLDER_PREFIX):
            shutil.rmtree(self.folder, ignore_errors=True)


def read_state(place: Path) -> State | None:
    """Returns the state in the folder `place`, None if there is none; raises BrokerError if unreadable."""
    file = place / "state.json"
    try:
        read = json.loads(file.read_text())
        return State(
            folder=Path(read["folder"]),
            temporary=bool(read["temporary"]),
            addresses={str(name): str(address) for name, address in read["addresses"].items()},
            processes={
                str(name): ProcessIdentity(int(each["pid"]), int(each["start_ticks"]))
                for name, each in read["processes"].items()
            },
        )
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        message = f"{file} cannot be read ({error!r}). End the brokers by hand, then remove {place}."
        raise BrokerError(message) from error


def write_state(place: Path, state: State) -> None:
    """Writes `state.json` into the folder `place`."""
    _write_private(
        place / "state.json", json.dumps({**asdict(state), "folder": str(state.folder)}, indent=2) + "\n"
    )


def write_environment(place: Path, minio: Minio, kafka: Kafka) -> None:
    """Writes `env` into the folder `place`: KEY=value lines for a shell or a container, for our eyes only."""
    values = {
        "S3_ENDPOINT": minio.endpoint,
        "S3_ACCESS_KEY": minio.access_key,
        "S3_SECRET_KEY": minio.secret_key,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
    }
    _write_private(place / "env", "".join(f"{name}={value}\n" for name, value in values.items()))


def _write_private(file: Path, text: str) -> None:
    file.parent.mkdir(mode=0o700, exist_ok=True)
    draft = file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)
    draft.rename(file)
