"""The brokers other tests stand on: they answer, keep their data, and end when they should."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import urllib3
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from brokers.__main__ import main
from brokers.cache import cached
from brokers.errors import BrokerStartError, BrokerUnavailableError
from brokers.identity import ProcessIdentity
from brokers.kafka import Kafka, kafka_jars, start_kafka
from brokers.minio import Minio, start_minio
from brokers.server import free_ports
from minio import Minio as Client

pytest_plugins = ["brokers.fixtures"]

TESTS = Path(__file__).parents[1]
BUCKET = "brokers"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any broker."""
    with subprocess.Popen(["sleep", "120"]) as process:
        yield process
        process.kill()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(minio: Minio, key: str) -> None:
    client = connect(minio)
    if not client.bucket_exists(BUCKET):
        client.make_bucket(BUCKET)
    client.put_object(BUCKET, key, io.BytesIO(key.encode()), len(key))


def get(minio: Minio, key: str) -> bytes:
    return connect(minio).get_object(BUCKET, key).read()


def connect(minio: Minio) -> Client:
    """A client that tries once: whatever the server refuses right after its start shows."""
    trust = str(minio.ca_file) if minio.ca_file else None
    pool = urllib3.PoolManager(retries=False, timeout=5, ca_certs=trust)
    scheme, _, address = minio.endpoint.partition("://")
    return Client(address, minio.access_key, minio.secret_key, secure=scheme == "https", http_client=pool)


async def send(kafka: Kafka, topic: str, value: bytes, **security: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, **security) as producer:
        await producer.send_and_wait(topic, value)


async def receive(kafka: Kafka, topic: str, count: int, **security: str) -> list[bytes | None]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=kafka.bootstrap,
        group_id=f"group-of-{topic}-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        **security,
    )
    async with consumer, asyncio.timeout(30):
        return [(await consumer.getone()).value for _ in range(count)]


def test_minio_gives_back_what_was_put_even_after_a_stop_and_a_kill(minio: Minio) -> None:
    put(minio, "first")
    minio.stop()
    minio.restart()
    put(minio, "second")
    minio.kill()
    minio.restart()
    assert [get(minio, key) for key in ("first", "second")] == [b"first", b"second"]


def test_a_paused_minio_answers_again_when_resumed(minio: Minio) -> None:
    minio.pause()
    assert not minio.answers()
    minio.resume()
    assert minio.answers()


def test_minio_speaks_tls_under_its_own_authority(minio: Minio, tmp_path: Path) -> None:
    secure = start_minio(tmp_path / "secure", tls=True)
    put(secure, "key")
    assert secure.endpoint.startswith("https://")
    assert get(secure, "key") == b"key"
    with pytest.raises(urllib3.exceptions.SSLError):
        connect(replace(secure, ca_file=None)).list_buckets()
    secure.stop()


def test_the_secret_is_in_no_argument_no_log_and_no_representation(minio: Minio) -> None:
    arguments = Path(f"/proc/{minio.process.pid}/cmdline").read_text()
    assert minio.secret_key not in arguments + minio.log.read_text() + repr(minio)


async def test_kafka_gives_back_what_was_sent_even_after_a_kill(kafka: Kafka) -> None:
    topic = f"topic-{uuid.uuid4().hex}"
    await send(kafka, topic, b"first")
    await asyncio.to_thread(kafka.kill)
    await asyncio.to_thread(kafka.restart)
    await send(kafka, topic, b"second")
    assert await receive(kafka, topic, 2) == [b"first", b"second"]


async def test_kafka_takes_settings_such_as_sasl_for_its_clients(kafka: Kafka, tmp_path: Path) -> None:
    login = "org.apache.kafka.common.security.plain.PlainLoginModule"
    settings = {
        "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.client.plain.sasl.jaas.config": rf'{login} required user_ada="back\\slash";',
    }
    secure = await asyncio.to_thread(start_kafka, tmp_path / "secure", settings=settings)
    security = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "ada",
    }
    await send(secure, "topic", b"value", **security, sasl_plain_password="back\\slash")
    with pytest.raises(KafkaError):
        await send(secure, "topic", b"value", **security, sasl_plain_password="wrong")
    await asyncio.to_thread(secure.stop)


def test_a_setting_kafka_refuses_is_named(kafka: Kafka, tmp_path: Path) -> None:
    with pytest.raises(BrokerStartError, match=r"Invalid value soon for configuration num\.io\.threads"):
        start_kafka(tmp_path, settings={"num.io.threads": "soon"})


def test_a_server_that_ends_early_shows_the_end_of_its_log(minio: Minio, tmp_path: Path) -> None:
    with pytest.raises(
        BrokerStartError, match=r"(?s)ended with 1 before it served.*minio.log.*Invalid credentials"
    ):
        start_minio(tmp_path, secret_key="short")


def test_a_port_that_another_server_has_is_refused(minio: Minio, tmp_path: Path) -> None:
    (taken,) = minio.ports
    with pytest.raises(BrokerStartError, match=f"port {taken} .*in use"):
        start_minio(tmp_path, port=taken)


def test_a_server_ends_with_its_starter_and_not_with_the_thread_that_asked(
    minio: Minio, tmp_path: Path
) -> None:
    script = (
        "import sys, threading, time, pathlib; from brokers.minio import start_minio\n"
        "def start(): print(start_minio(pathlib.Path(sys.argv[1])).process.pid, flush=True)\n"
        "thread = threading.Thread(target=start); thread.start(); thread.join(); time.sleep(120)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
    )
    with starter:
        assert starter.stdout is not None
        server = ProcessIdentity.of(int(starter.stdout.readline()))
        assert server.runs()
        starter.kill()
    deadline = time.monotonic() + 10
    while server.runs() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not server.runs()


def test_start_tells_where_the_brokers_are_and_stop_leaves_nothing(
    minio: Minio, kafka: Kafka, here: Path
) -> None:
    def brokers(command: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "brokers", command],
            env={**os.environ, "PYTHONPATH": str(TESTS), "TMPDIR": str(here)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    try:
        assert brokers("status")[0] == 1
        status, said = brokers("start")
        assert status == 0, said
        lines = (here / ".brokers/env").read_text().splitlines()
        given = dict(line.split("=", 1) for line in lines)
        assert list(given) == ["S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "KAFKA_BOOTSTRAP_SERVERS"]
        assert (here / ".brokers/env").stat().st_mode & 0o777 == 0o600
        assert given["S3_ENDPOINT"] in said
        assert given["S3_SECRET_KEY"] not in said
        status, said = brokers("start")
        assert (status, "run already" in said) == (0, True)
        assert brokers("status")[0] == 0
        state = json.loads((here / ".brokers/state.json").read_text())
    finally:
        status, said = brokers("stop")
    assert status == 0, said
    assert not any(ProcessIdentity(**process).runs() for process in state["processes"].values())
    assert list(here.iterdir()) == []


def test_stop_leaves_a_process_alone_that_only_has_the_pid(
    here: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    real = ProcessIdentity.of(sleeper.pid)
    leave_state(here, replace(real, start_ticks=real.start_ticks - 1))
    assert main(["stop"]) == 0
    assert sleeper.poll() is None
    assert not (here / ".brokers").exists()


def test_stop_ends_the_process_it_knows_paused_or_not(here: Path, sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.send_signal(signal.SIGSTOP)
    leave_state(here, ProcessIdentity.of(sleeper.pid))
    assert main(["stop"]) == 0
    assert sleeper.wait(5) == -signal.SIGTERM


def test_stop_removes_no_folder_that_start_did_not_make(here: Path, sleeper: subprocess.Popen[bytes]) -> None:
    (here / "precious").mkdir()
    leave_state(here, ProcessIdentity.of(sleeper.pid), folder="precious")
    assert main(["stop"]) == 0
    assert (here / "precious").exists()


def leave_state(here: Path, process: ProcessIdentity, folder: str = "headrace-brokers-x") -> None:
    (here / ".brokers").mkdir()
    state = {
        "folder": str(here / folder),
        "temporary": True,
        "addresses": {"Kafka": "127.0.0.1:1"},
        "processes": {"Kafka": asdict(process)},
    }
    (here / ".brokers/state.json").write_text(json.dumps(state))


@pytest.mark.parametrize("text", ["", "{}", '{"folder": 1}', "[]"])
def test_an_unreadable_state_is_a_message_and_no_traceback(
    here: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (here / ".brokers").mkdir()
    (here / ".brokers/state.json").write_text(text)
    assert main(["stop"]) == 1
    assert "state.json cannot be read" in capsys.readouterr().err


def test_a_machine_without_the_tools_is_told_which_and_how_to_get_them(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    monkeypatch.setenv("PATH", str(here))
    assert main(["start"]) == 2
    said = capsys.readouterr().err
    assert "`go` is not on PATH" in said
    assert "install Go 1.24 or newer" in said
    assert not (here / ".brokers").exists()
    with pytest.raises(BrokerUnavailableError, match=r"`mvn` is not on PATH.*install Maven"):
        kafka_jars()


def test_a_build_that_fails_leaves_nothing_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fail(scratch: Path) -> Path:
        (scratch / "half").write_text("")
        raise BrokerUnavailableError("no network", "Get one.")

    def succeed(scratch: Path) -> Path:
        (scratch / "whole").write_text("made")
        return scratch / "whole"

    with pytest.raises(BrokerUnavailableError, match=r"no network\. Get one\."):
        cached("thing-1", fail)
    assert cached("thing-1", succeed).read_text() == "made"
    assert cached("thing-1", fail).read_text() == "made"
    assert {path.name for path in (tmp_path / "headrace/brokers").iterdir()} == {"thing-1", ".thing-1.lock"}


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20
