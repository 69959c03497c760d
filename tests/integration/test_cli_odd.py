"""The command line with odd files, options, servers and readers: an exit code, and a sentence."""

import gzip
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.parquet
import pytest
from harness.dialogue import HEADER, lines
from harness.server import Server
from typer.testing import CliRunner, Result

from headrace.cli import progress
from headrace.cli.app import app

pytestmark = pytest.mark.timeout(300)

ITEMS = b"item_id,title\ni1,Chair\n"
JSON = b'{"item_id": "i1", "title": "Chair"}\n'


def _parquet(file: Path) -> None:
    pa.parquet.write_table(pa.table({"item_id": ["i1"], "title": ["Chair"]}), file)


def _fifo(file: Path) -> None:
    os.mkfifo(file)
    threading.Thread(target=lambda: file.write_bytes(ITEMS), daemon=True).start()


def _socket(file: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(file))
    listening.close()


FILES: dict[str, bytes | Callable[[Path], None]] = {
    "empty.csv": b"",
    "empty.jsonl": b"",
    "empty.parquet": b"",
    "empty.csv.gz": b"",
    "directory": Path.mkdir,
    "gone.csv": lambda file: file.symlink_to("nowhere"),
    "loop.csv": lambda file: file.symlink_to(file.name),
    "socket.csv": _socket,
    "fifo": _fifo,
    "random.bin": random.Random(1).randbytes(5_000),
    "random.csv.gz": random.Random(2).randbytes(5_000),
    "random.jsonl.zst": random.Random(3).randbytes(5_000),
    "torn.csv.gz": gzip.compress(ITEMS * 500)[:60],
    "torn.jsonl.gz": gzip.compress(JSON * 500)[:60],
    "utf16.csv": ITEMS.decode().encode("utf-16"),
    "utf16.jsonl": JSON.decode().encode("utf-16"),
    "latin1.csv": "item_id,title\ni1,Stühle\n".encode("latin-1"),
    "latin1.jsonl": '{"item_id": "i1", "title": "Stühle"}\n'.encode("latin-1"),
    "surrogate.jsonl": rb'{"item_id": "\ud800", "title": "x"}' + b"\n",
    "nul.jsonl": JSON + b"\0\n",
    "deep.jsonl": b'{"item_id": ' + b"[" * 3_000 + b"\n",
    "digits.jsonl": b'{"item_id": "i", "title": "x", "price": ' + b"9" * 5_000 + b"}\n",
    "exponent.jsonl": b'{"item_id": "i", "title": "x", "price": 1e999}\n',
    "long.jsonl": b'{"item_id": "i", "title": "' + b"x" * (2 << 20) + b'"}\n',
    "long.csv": ITEMS + b"i2," + b"x" * (2 << 20) + b"\n",
    "wide.csv": b",".join(b"c%d" % n for n in range(5_000)) + b"\n",
    "array.jsonl": b"[" + JSON + b"]",
    "csv.parquet": ITEMS,
    "parquet.csv": _parquet,
    "parquet.jsonl": _parquet,
    "[red]markup[x].csv": ITEMS,
    "-dash.csv": ITEMS,
    "new\nline.csv": ITEMS,
}


@pytest.fixture
def run(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command in a folder of its own; it must end with an exit code, and errors in sentences."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, address: str = server.address) -> Result:
        environment = {"HEADRACE_GRPC_ADDRESS": address, "COLUMNS": "200"}
        result = CliRunner().invoke(app, arguments, env=environment)
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert "Traceback" not in result.output
        said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert (result.exit_code in (1, 2)) >= bool(said), result.output
        for line in said:
            assert line.removeprefix("error: ")[0] not in "[(", line
        return result

    return call


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_any_kind_is_taken_or_refused_in_words(
    run: Callable[..., Result], tenant: str, tmp_path: Path, name: str
) -> None:
    content = FILES[name]
    for command in (("validate",), ("upload", "--tenant", tenant)):
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif not os.path.lexists(tmp_path / name):
            content(tmp_path / name)
        elif content is _fifo:
            threading.Thread(target=lambda: (tmp_path / name).write_bytes(ITEMS), daemon=True).start()
        result = run(*command, "--type", "items", "--", name)
        assert result.output.strip()


def test_a_file_whose_name_is_not_utf_8_is_taken(
    run: Callable[..., Result], tenant: str, tmp_path: Path
) -> None:
    name = os.fsdecode(b"\xff.csv")
    (tmp_path / name).write_bytes(ITEMS)
    assert run("upload", name, "--tenant", tenant, "--type", "items").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("tables", "--tenant", os.fsdecode(b"\xff")),
        ("tables", "--tenant", ""),
        ("tables", "--tenant", "[/]"),
        ("read", "[/]", "--tenant", "t"),
        ("read", "x" * 100_000, "--tenant", "t"),
        ("read", "items", "--tenant", "t", "--version", str(2**63)),
        ("read", "items", "--tenant", "t", "--limit", str(2**64)),
        ("read", "items", "--tenant", "t", "--column", ""),
        ("rejects", "[/]", "--tenant", "t", "--limit", str(2**63 - 2)),
        ("status", "", "--tenant", "t"),
        ("negatives", "--tenant", "t", "--seed", str(2**64)),
        ("negatives", "--tenant", "t", "--ratio", str(2**32)),
        ("negatives", "--tenant", "t", "--alpha", "nan"),
        ("features", "--tenant", "t", "--as-of", "0001-01-01T00:00:00+23:59"),
        ("features", "--tenant", "t", "--as-of", "9999-12-31T23:59:59-23:59"),
        ("generate", "--end", "0001-01-01"),
        ("generate", "--interactions", str(2**62), "--users", str(2**62)),
        ("generate", "--to", "/dev/null/x"),
        ("health", "--address", "no address"),
        ("health", "--address", ""),
        ("health", "--address", "ftp://[/"),
    ],
    ids=lambda arguments: " ".join(arguments)[:60].encode("ascii", "replace").decode(),
)
def test_an_odd_option_is_exit_code_2_and_said(
    run: Callable[..., Result], arguments: tuple[str, ...]
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.strip()


@pytest.mark.parametrize("output", ["gone/x.csv", "folder.csv", "/dev/full/x.csv", "x", ""])
def test_rows_that_cannot_be_written_are_exit_code_2(
    run: Callable[..., Result], tenant: str, tmp_path: Path, output: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "items.csv").write_bytes(ITEMS)
    run("upload", "items.csv", "--tenant", tenant, "--type", "items")
    assert run("read", "items", "--tenant", tenant, "-o", output).exit_code == 2


def test_a_name_with_brackets_is_shown_as_it_is(
    run: Callable[..., Result], tenant: str, tmp_path: Path
) -> None:
    (tmp_path / "[").mkdir()
    (tmp_path / "items.csv").write_bytes(ITEMS)
    run("upload", "items.csv", "--tenant", tenant, "--type", "items")
    assert "[/x].csv" in run("read", "items", "--tenant", tenant, "-o", "[/x].csv").stdout


class _Odd(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """A server that answers every call with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:  # type: ignore[type-arg]
        return grpc.stream_stream_rpc_method_handler(lambda requests, context: iter([self.answer]))


@pytest.fixture(params=[b"", b"\xff", b"\x0a\x03abc", b"\x0a\x02\x08\x01"], ids=bytes.hex)
def odd_server(request: pytest.FixtureRequest) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[_Odd(request.param)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0)


def test_an_answer_of_another_server_is_no_traceback(
    run: Callable[..., Result], odd_server: str, tmp_path: Path
) -> None:
    (tmp_path / "items.csv").write_bytes(ITEMS)
    where = ("--tenant", "t")
    for command in (
        ("health",),
        ("schema", "items"),
        ("tables", *where),
        ("status", "x", *where),
        ("rejects", "x", *where),
        ("read", "items", *where),
        ("read", "items", *where, "--json"),
        ("read", "items", *where, "-o", "out.parquet"),
        ("features", *where),
        ("validate", "items.csv", "--type", "items"),
    ):
        assert run(*command, address=odd_server).exit_code in (0, 1, 2)


def test_a_server_that_speaks_no_grpc_is_exit_code_2(run: Callable[..., Result], server: Server) -> None:
    assert run("schema", "items", address=f"127.0.0.1:{server.http_port}").exit_code == 2


def _process(server: Server, *arguments: str, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "from headrace.cli import main; main()", *arguments],
        env={**os.environ, "HEADRACE_GRPC_ADDRESS": server.address},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_dash_is_stdin(server: Server, tenant: str) -> None:
    process = _process(server, "upload", "-", "--tenant", tenant, "--type", "items", "--json")
    out, err = process.communicate(ITEMS, timeout=120)
    assert (process.returncode, err) == (0, b"")
    assert b"OUTCOME_COMMITTED" in out


def test_a_reader_that_goes_away_ends_a_command_without_a_word(
    server: Server, run: Callable[..., Result], tenant: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(HEADER + lines(5_000))
    run("upload", "rows.csv", "--tenant", tenant, "--type", "interactions")
    process = _process(server, "read", "interactions", "--tenant", tenant, "--json")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.close()
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == -13


@pytest.mark.parametrize("command", ["headrace.cli", "headrace_server.main"])
def test_version_and_unknown_options(command: str) -> None:
    run = [sys.executable, "-c", f"from {command} import main; main()"]
    told = subprocess.run([*run, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.startswith("headrace")
    assert told.stdout.split()[1][0].isdigit()
    assert (
        subprocess.run([*run, "--frobnicate"], capture_output=True, check=False, timeout=60).returncode == 2
    )


def test_long_work_without_a_terminal_is_told_in_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    with progress.rows_bar("generating [x]", 10) as advance:
        advance(5)
        text = ""
        while "50 %, 5 rows" not in text:
            time.sleep(0.01)
            text += capsys.readouterr().err
    assert "generating [x]: 50 %, 5 rows, 0 s" in text
