"""`python -m brokers start|status|stop`: MinIO and Kafka on loopback for a developer, without Docker.

Exit status: 0 done (`status`: both run); 1 it did not work (`status`: they do not both run); 2 wrong usage,
or something is missing on this machine.
"""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from brokers.cache import locked
from brokers.errors import BrokerError, BrokerUnavailableError
from brokers.identity import ProcessIdentity
from brokers.kafka import start_kafka
from brokers.minio import start_minio
from brokers.server import STOP_SECONDS
from brokers.state import FOLDER_PREFIX, State, read_state, write_environment, write_state

PLACE = ".brokers"
DONE, FAILED, MISSING = 0, 1, 2

HOW_TO_USE = """
Addresses and S3 keys are in {env}. To have them in this shell:

    set -a; . {env}; set +a

To end both: python -m brokers stop (make brokers-stop)."""


def start(place: Path, folder: Path | None) -> int:
    """Starts both brokers, unless both run; `place` gets what others need to find them."""
    state = read_state(place)
    if state is not None and all(state.running().values()):
        say("Both run already.")
    else:
        if state is not None:
            say("The brokers of last time did not end as they should; ending what is left of them.")
            _end(place, state)
        state = _start(place, folder)
    _describe(state)
    say(HOW_TO_USE.format(env=os.path.relpath(place / "env")))
    return DONE


def status(place: Path) -> int:
    """Says which brokers run."""
    state = read_state(place)
    if state is None:
        say("No brokers run. Start them: python -m brokers start (make brokers).")
        return FAILED
    _describe(state)
    return DONE if all(state.running().values()) else FAILED


def stop(place: Path) -> int:
    """Ends the brokers, removes their temporary data and `place`; leaves processes of others alone."""
    state = read_state(place)
    if state is None:
        say("No brokers run.")
        return DONE
    _end(place, state)
    say("Both ended." if state.temporary else f"Both ended; their data stay in {state.folder}.")
    return DONE


def _start(place: Path, folder: Path | None) -> State:
    where = folder.absolute() if folder else Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    with ExitStack() as undo:
        if folder is None:
            undo.callback(shutil.rmtree, where, ignore_errors=True)
        minio = start_minio(where / "minio", outlive=True)
        undo.callback(minio.kill)
        kafka = start_kafka(where / "kafka", outlive=True)
        undo.callback(kafka.kill)
        state = State(
            folder=where,
            temporary=folder is None,
            addresses={"MinIO": minio.endpoint, "Kafka": kafka.bootstrap},
            processes={
                "MinIO": ProcessIdentity.of(minio.process.pid),
                "Kafka": ProcessIdentity.of(kafka.process.pid),
            },
        )
        write_environment(place, minio, kafka)
        write_state(place, state)
        undo.pop_all()
    return state


def _end(place: Path, state: State) -> None:
    for process in state.processes.values():
        process.end(STOP_SECONDS)
    state.remove_data()
    shutil.rmtree(place)


def _describe(state: State) -> None:
    for name, runs in state.running().items():
        pid = f"pid {state.processes[name].pid}" if runs else "ended"
        say(f"{name}  {state.addresses[name]:<24} {pid}")
    say(f"Data   {state.folder}{' (until they are stopped)' if state.temporary else ''}")


def say(text: str) -> None:
    """Prints a line for the user."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Runs one command in the current folder and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m brokers", description="MinIO and Kafka on loopback, without Docker."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start", help=f"start both; {PLACE}/env tells where they are")
    starting.add_argument("--folder", type=Path, help="keep the data here (default: a temporary folder)")
    commands.add_parser("status", help="say whether they run")
    commands.add_parser("stop", help="end both and remove temporary data")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    place = Path.cwd() / PLACE
    try:
        # Two commands at once would start four brokers. The current folder is the lock: no file stays behind.
        with locked(place.parent):
            if given.command == "start":
                return start(place, given.folder)
            return status(place) if given.command == "status" else stop(place)
    except BrokerUnavailableError as error:
        sys.stderr.write(f"Brokers cannot run here: {error}\n")
        return MISSING
    except (BrokerError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
