"""The clients in Go, TypeScript and Java: what their examples do to a real server."""

import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from brokers.tools import find_tool
from harness.phoenix import Phoenix
from harness.server import Server

import headrace
from doors.languages import CLIENTS, ROOT, Language, build, copy_checkout, install_node_packages, toolchain

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HEADER = "user_id,item_id,interaction_type,timestamp,rating\n"
RESULT = re.compile(
    r"(?:OUTCOME_)?(\w+) version (\d+): (\d+) rows received, (\d+) accepted, (\d+) rejected,"
    r" (\d+) of these duplicate"
)
PROGRESS = re.compile(r"upload (\S+): (\d+) bytes safe, (\d+) rows accepted, (\d+) rejected")
ROWS = 300_000
# With it a client is amid its stream for as long as the upload takes.
SMALL_WINDOW = {"HEADRACE_WINDOW_BYTES": str(2 << 20)}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module", params=CLIENTS)
def language(request: pytest.FixtureRequest, checkout: Path) -> Language:
    return build(request.param, checkout)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROWS rows, no two the same, in some hundred blocks."""
    file = tmp_path_factory.mktemp("large") / "large.csv"
    rows = (f"user-{n % 1000},item-{n},view,2026-01-31T00:00:00Z,4.5\n" for n in range(ROWS))
    file.write_text(HEADER + "".join(rows))
    return file


def result_of(output: str) -> tuple[str, tuple[int, ...]]:
    """Outcome; version, rows received, accepted, rejected, duplicate."""
    (found,) = RESULT.findall(output)
    return found[0], tuple(map(int, found[1:]))


def items_of(phoenix: Phoenix, tenant: str) -> list[str]:
    with headrace.Client(phoenix.address) as client:
        return sorted(client.read_table(tenant, "interactions", columns=["item_id"])["item_id"].to_pylist())


def half_way(process: subprocess.Popen[str], file: Path) -> str:
    """Reads what an upload prints until part of it is safe; its id."""
    assert process.stdout is not None
    size = file.stat().st_size
    for line in process.stdout:
        if (found := PROGRESS.match(line)) and 0 < int(found[2]) < size:
            return found[1]
    raise AssertionError(f"it ended with {process.wait()}: {process.stderr.read() if process.stderr else ''}")


def test_a_hundred_thousand_bad_rows_are_counted_and_some_are_shown(
    language: Language, phoenix: Phoenix, tenant: str, tmp_path: Path
) -> None:
    file = tmp_path / "bad.csv"
    good, bad = "u1,i{},view,2026-01-31,4.5\n", "u1,i1,view,2026-01-31,five\n"
    file.write_text(HEADER + bad * 60_000 + "".join(map(good.format, range(10))) + bad * 40_000)
    status, output, complaints = language.run(phoenix.address, "upload", file, tenant)
    assert status == 0, complaints
    assert result_of(output) == ("COMMITTED", (1, 100_010, 10, 100_000, 0))
    assert "rating BAD_NUMBER: 100000 rows" in output
    shown = re.findall(r"^  line (\d+): ", output, re.MULTILINE)
    assert shown == [str(line) for line in range(2, 22)]
    assert items_of(phoenix, tenant) == [f"i{n}" for n in range(10)]


def test_an_upload_whose_server_is_killed_and_restarted_ends_with_rows_once(
    language: Language, phoenix: Phoenix, tenant: str, large: Path
) -> None:
    with language.start(phoenix.address, "upload", large, tenant) as process:
        half_way(process, large)
        phoenix.kill_and_rise()
        output, complaints = process.communicate(timeout=120)
        assert process.returncode == 0, complaints
    assert "interrupted at byte" in output
    assert result_of(output) == ("COMMITTED", (1, ROWS, ROWS, 0, 0))
    assert items_of(phoenix, tenant) == sorted(f"item-{n}" for n in range(ROWS))
    status, output, complaints = language.run(phoenix.address, "read", tenant, "interactions")
    assert status == 0, complaints
    assert f"{ROWS} rows read" in output
    assert "rating" in output  # Of the schema.


def test_an_upload_whose_server_is_stopped_goes_on_with_the_next_one(
    language: Language, phoenix: Phoenix, tenant: str, large: Path
) -> None:
    with language.start(phoenix.address, "upload", large, tenant, **SMALL_WINDOW) as process:
        half_way(process, large)
        assert phoenix.rest().stop() == 0
        phoenix.rest()
        output, complaints = process.communicate(timeout=120)
        assert process.returncode == 0, complaints
    assert "interrupted at byte" in output
    assert result_of(output) == ("COMMITTED", (1, ROWS, ROWS, 0, 0))
    assert items_of(phoenix, tenant) == sorted(f"item-{n}" for n in range(ROWS))


def test_an_upload_that_another_client_has_taken_over_gives_way_to_it(
    language: Language, phoenix: Phoenix, tenant: str, large: Path
) -> None:
    with language.start(phoenix.address, "upload", large, tenant, **SMALL_WINDOW) as process:
        upload_id = half_way(process, large)
        process.send_signal(signal.SIGSTOP)
        status, output, complaints = language.run(phoenix.address, "upload", large, tenant, upload_id)
        process.send_signal(signal.SIGCONT)
        older, its_complaints = process.communicate(timeout=120)
    assert status == 0, complaints
    assert result_of(output) == ("COMMITTED", (1, ROWS, ROWS, 0, 0))
    assert (process.returncode, "interrupted" in older) == (1, False)
    assert "FENCED" in its_complaints


def test_an_upload_whose_client_was_killed_goes_on_by_its_id(
    language: Language, phoenix: Phoenix, tenant: str, large: Path, tmp_path: Path
) -> None:
    with language.start(phoenix.address, "upload", large, tenant) as process:
        upload_id = half_way(process, large)
        process.kill()
    status, output, _ = language.run(phoenix.address, "status", tenant, upload_id)
    assert (status, "OPEN, " in output) == (0, True)
    status, output, complaints = language.run(phoenix.address, "upload", large, tenant, upload_id)
    assert status == 0, complaints
    went_on_at = PROGRESS.search(output)
    assert went_on_at is not None
    assert int(went_on_at[2]) > 0
    assert result_of(output) == ("COMMITTED", (1, ROWS, ROWS, 0, 0))
    assert items_of(phoenix, tenant) == sorted(f"item-{n}" for n in range(ROWS))

    again = language.run(phoenix.address, "upload", large, tenant, upload_id)
    assert (again[0], result_of(again[1])) == (0, result_of(output))
    other = tmp_path / "other.csv"
    other.write_text(large.read_text() + "user-1,one-more,view,2026-01-31,4.5\n")
    status, _, complaints = language.run(phoenix.address, "upload", other, tenant, upload_id)
    assert status == 1
    assert "not the content that the upload was begun with" in complaints


def test_an_upload_whose_window_is_smaller_than_a_block_asks_for_acks(
    language: Language, server: Server, tenant: str, large: Path
) -> None:
    status, output, complaints = language.run(server.address, "upload", large, tenant, **SMALL_WINDOW)
    assert status == 0, complaints
    assert result_of(output) == ("COMMITTED", (1, ROWS, ROWS, 0, 0))
    # An ack for each window, and not one for each block.
    safe = [int(found[2]) for found in PROGRESS.finditer(output)]
    assert len(set(safe)) > large.stat().st_size / (4 << 20)


def test_failed_calls_have_a_reason_and_say_whether_to_try_again(
    language: Language, phoenix: Phoenix, tenant: str, tmp_path: Path
) -> None:
    unknown = str(uuid.uuid4())
    status, output, _ = language.run(phoenix.address, "status", tenant, unknown)
    assert (status, output) == (0, f"there is no upload {unknown}\n")
    _, output, _ = language.run(phoenix.address, "status", "no spaces", unknown)
    assert output.startswith("failed for good: ")
    assert "INVALID_FIELD" in output
    _, output, _ = language.run("127.0.0.1:1", "status", tenant, unknown)
    assert output.startswith("try again later: ")

    file = tmp_path / "columns.csv"
    file.write_text("user_id,timestamp\nu1,2026-01-31\n")
    status, _, complaints = language.run(phoenix.address, "upload", file, tenant)
    assert status == 1
    assert "MISSING_COLUMN" in complaints


def test_a_client_writing_flat_out_sees_the_error_every_time(
    language: Language, phoenix: Phoenix, tenant: str, tmp_path: Path
) -> None:
    file = tmp_path / "record.csv"
    row = "u1,i1,view,2026-01-31T00:00:00Z,\n"
    file.write_text(HEADER + row * 1_000 + f"u1,{'x' * (2 << 20)},view,2026-01-31,\n" + row * 600_000)
    for _ in range(10):
        status, output, complaints = language.run(phoenix.address, "upload", file, tenant)
        assert (status, "interrupted" in output) == (1, False)
        assert "RECORD_TOO_LARGE" in complaints


@pytest.mark.parametrize("name", ["go", "typescript"])
def test_generating_the_stubs_again_changes_nothing(name: str, checkout: Path, tmp_path: Path) -> None:
    with toolchain(name):
        if name == "typescript":
            install_node_packages(checkout / "clients" / name)
        else:
            find_tool("go", "Install Go 1.26 or newer (https://go.dev/dl).")
    buf = Path(sys.executable).with_name("buf")
    template = f"clients/{name}/buf.gen.yaml"
    subprocess.run([buf, "generate", "--template", template, "--output", tmp_path], cwd=checkout, check=True)
    generated = {
        path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    folders = {path.parent for path in generated}
    committed = {
        path.relative_to(ROOT): path.read_bytes()
        for folder in folders
        for path in (ROOT / folder).iterdir()
        if path.is_file()
    }
    assert generated.keys() == committed.keys()
    stale = [str(name) for name, content in generated.items() if committed[name] != content]
    assert stale == [], "run `make proto` and commit what it writes"
