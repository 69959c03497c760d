"""pytest fixtures: one MinIO and one Kafka for all tests of a run.

A test module has them with `pytest_plugins = ["brokers.fixtures"]`. A machine that lacks what they need skips
the tests and says why. Where they must run, such as in CI, HEADRACE_REQUIRE_BROKERS=1 makes them fail.
"""

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from brokers.errors import BrokerUnavailableError
from brokers.kafka import Kafka, kafka_jars, start_kafka
from brokers.minio import Minio, minio_program, start_minio

REQUIRE = "HEADRACE_REQUIRE_BROKERS"

_Made = TypeVar("_Made")
_missing: dict[str, BrokerUnavailableError] = {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds and fetches what the chosen tests need: it takes longer than any one test may."""
    if session.config.option.collectonly:
        return
    needed = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for name, make in {"minio": minio_program, "kafka": kafka_jars}.items():
        if name in needed:
            try:
                make()
            except BrokerUnavailableError as error:
                _missing[name] = error  # said by the tests that wanted it


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    """A running MinIO; a test that stops it starts it again."""
    server = _start("minio", lambda: start_minio(tmp_path_factory.mktemp("minio")))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A running Kafka; a test that stops it starts it again."""
    server = _start("kafka", lambda: start_kafka(tmp_path_factory.mktemp("kafka")))
    yield server
    server.stop()


def _start(name: str, start: Callable[[], _Made]) -> _Made:
    try:
        if name in _missing:
            raise _missing[name]
        return start()
    except BrokerUnavailableError as error:
        reason = f"no {name}: {error}"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{REQUIRE}=1, but {reason}", pytrace=False)
    pytest.skip(reason)
