"""What a server with a Ray of its own shows to others on its host: listeners, folders, files."""

import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from harness.server import Server
from harness.watch import eventually

from headrace import Client


@pytest.fixture
def shared() -> Iterator[Path]:
    """A temporary directory in which somebody has taken the name of Ray's folder."""
    # Paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        taken = Path(folder) / f"headrace-ray-{os.getuid()}"
        taken.mkdir()
        taken.chmod(0o777)
        yield Path(folder)


def test_nothing_listens_beyond_loopback_and_nothing_is_readable_by_others(
    own_server: Callable[..., Server], shared: Path
) -> None:
    server = own_server(RAY_ADDRESS="", RAY_AUTH_MODE="", RAY_AUTH_TOKEN="", TMPDIR=str(shared))
    with Client(server.address) as client:
        client.upload_rows("acme", "items", [{"item_id": "i", "title": "x"}])
    # Agents of Ray open their ports when everything else has long begun.
    expected = {"gcs_server", "raylet", "ray::DashboardAgent"}
    eventually(lambda: expected <= {each.name() for each in _all(server)})
    family = _all(server)
    commands = " ".join(word for each in family for word in each.cmdline())
    assert not [name for name in ("monitor.py", "dashboard.py") if name in commands]
    listeners = [
        found.laddr.ip for each in family for found in each.net_connections() if found.status == "LISTEN"
    ]
    assert len(listeners) > 2
    assert set(listeners) <= {"127.0.0.1", "::ffff:127.0.0.1"}

    (folder,) = shared.glob("headrace-ray-*-*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "ray/session_latest/sockets/raylet").is_socket()
    assert not list((shared / f"headrace-ray-{os.getuid()}").iterdir())
    assert "is open to others" in str(server.log)
    # What Ray says is a line of ours, as any other.
    assert server.logged(logger="ray._private.authentication.authentication_token_setup")
    assert [line for line in server.log if "text" in line] == []
    # What its processes of C++ have to say lies apart, as JSON.
    logs = folder / "ray/session_latest/logs"
    texts = [(logs / name).read_text() for name in ("raylet.out", "gcs_server.out")]
    # The last line may be half-written.
    lines = [line for text in texts for line in text.split("\n")[:-1]]
    assert lines
    assert all("levelname" in json.loads(line) for line in lines)

    mine = [server.data_dir, *server.data_dir.rglob("*")]
    assert any(each.suffix == ".parquet" for each in mine)
    assert [each for each in mine if stat.S_IMODE(each.stat().st_mode) & 0o077] == []


def _all(server: Server) -> list[psutil.Process]:
    process = psutil.Process(server.process.pid)
    return [process, *process.children(recursive=True)]
