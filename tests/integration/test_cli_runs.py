"""The command line on runs with a request id: real processes, with a terminal and without one."""

import json
import os
import pty
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from harness.dialogue import HEADER, Dialogue, chunk, finish, header, lines
from harness.server import Server
from harness.watch import eventually

from headrace import Client
from headrace.errors import RunNotFoundError
from headrace.v1 import run_pb2
from headrace.v1.pipeline_service_pb2_grpc import PipelineServiceStub

ALL = (
    *("--positive-types", "view", "--max-interactions-per-user", "0"),
    *("--min-interactions-per-user", "0", "--min-interactions-per-item", "0"),
)

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def command(server: Server, stub: PipelineServiceStub, tenant: str) -> Run:
    """Starts a command on a tenant that has interactions."""
    assert Dialogue(stub, [header(tenant), chunk(HEADER + lines(60_000)), finish()]).result

    def start(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", "from headrace.cli import main; main()", *arguments]
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options
        return subprocess.Popen(
            [*command, "--tenant", tenant],
            env={**os.environ, "HEADRACE_GRPC_ADDRESS": server.address, "COLUMNS": "200"},
            text=True,
            **streams,
        )

    return start


def _answer(process: "subprocess.Popen[str]", code: int = 0) -> tuple[str, str]:
    output, error = process.communicate(timeout=120)
    assert process.returncode == code, (output, error)
    return output, error


def _is_at_work(client: Client, tenant: str, request_id: str) -> bool:
    try:
        return bool(client.get_run(tenant, request_id).progress.stage)
    except RunNotFoundError:
        return False


def test_a_run_is_made_again_shown_and_listed(command: Run, tenant: str) -> None:
    request_id = str(uuid.uuid4())
    first, again = (
        json.loads(_answer(command("features", "--request-id", request_id, "--json"))[0]) for _ in range(2)
    )
    assert again == first
    (run,) = json.loads(_answer(command("runs", "--json"))[0])["runs"]
    assert (run["request_id"], run["state"], run["features"]) == (request_id, "RUN_STATE_DONE", first)
    assert json.loads(_answer(command("run", "show", request_id, "--json"))[0]) == run
    shown = _answer(command("run", "show", request_id))[0]
    assert "DONE" in shown
    assert "user_features" in shown
    assert request_id in _answer(command("runs"))[0]
    refused = _answer(command("run", "cancel", request_id, "--json"), code=2)[0]
    assert json.loads(refused)["error"]["reason"] == "RUN_FINISHED"


def test_ctrl_c_without_a_terminal_leaves_the_run_and_says_how_to_come_back(
    command: Run, client: Client, tenant: str
) -> None:
    request_id = str(uuid.uuid4())
    process = command("negatives", "--request-id", request_id, *ALL, "--ratio", "1000")
    eventually(lambda: _is_at_work(client, tenant, request_id))
    process.send_signal(signal.SIGINT)
    error = _answer(process, code=130)[1]
    assert f"headrace run cancel {request_id} --tenant {tenant}" in error
    assert client.get_run(tenant, request_id).state == run_pb2.RUN_STATE_RUNNING
    assert "is cancelled" in _answer(command("run", "cancel", request_id))[0]
    assert client.get_run(tenant, request_id).state == run_pb2.RUN_STATE_CANCELLED


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ("y\n", run_pb2.RUN_STATE_CANCELLED),
        pytest.param("\n", run_pb2.RUN_STATE_RUNNING, marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_at_a_terminal_asks_once(
    command: Run, client: Client, tenant: str, answer: str, state: run_pb2.RunState.ValueType
) -> None:
    request_id, (ours, theirs) = str(uuid.uuid4()), pty.openpty()
    process = command(
        "negatives", "--request-id", request_id, *ALL, "--ratio", "1000", stdin=theirs, stderr=theirs
    )
    os.close(theirs)
    eventually(lambda: _is_at_work(client, tenant, request_id))
    process.send_signal(signal.SIGINT)
    said = b""
    while b"Cancel the run?" not in said:
        said += os.read(ours, 4096)
    os.write(ours, answer.encode())
    assert process.wait(60) == 130
    os.close(ours)
    assert client.get_run(tenant, request_id).state == state
    client.cancel_run(tenant, request_id)
