"""Every point still names a function, and an order is carried out once, where it says."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.inject import FOLDER, Order
from chaos.points import POINTS

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("name", POINTS)
def test_a_point_is_a_function_with_the_argument_it_looks_at(name: str) -> None:
    point = POINTS[name]
    parameters = inspect.signature(point.resolve()).parameters
    assert point.only is None or point.only[0] in parameters


def test_an_order_for_no_point_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"no point 'nowhere'"):
        Order("nowhere", "raise").arm(tmp_path)


def _as_server(tmp_path: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a process that takes itself for a server under chaos."""
    path = f"{TESTS / 'chaos' / 'site'}:{TESTS}"
    return subprocess.run(
        [sys.executable, "-c", program, "headrace_server.main"],
        env={**os.environ, "PYTHONPATH": path, FOLDER: str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


CREATE = """
from headrace_compute.objects.local import LocalStore
store = LocalStore({root!r})
for number in range(4):
    try:
        store.create(f"b/{{number}}", b"x")
        print("created", end=" ")
    except OSError as error:
        print(error, store.exists(f"b/{{number}}"), end=" ")
"""


@pytest.mark.parametrize(("when", "exists"), [("before", False), ("after", True)])
def test_an_order_is_carried_out_once_at_the_nth_call(tmp_path: Path, when: str, exists: bool) -> None:
    Order(f"create.{when}", "raise", nth=2).arm(tmp_path)
    ended = _as_server(tmp_path, CREATE.format(root=str(tmp_path / "store")))
    assert ended.stdout.split("created") == ["", f" chaos at create.{when} {exists} ", " ", " "], ended
    assert len(list(tmp_path.glob("*.hit-*"))) == 1


def test_a_kill_is_a_kill(tmp_path: Path) -> None:
    Order("create.after", "kill server").arm(tmp_path)
    ended = _as_server(tmp_path, CREATE.format(root=str(tmp_path / "store")))
    assert (ended.returncode, ended.stdout) == (-9, "")
    assert (tmp_path / "store" / "b" / "0").exists()


def test_a_name_that_is_gone_stops_the_process(tmp_path: Path) -> None:
    program = """
import chaos.points, dataclasses
point = chaos.points.POINTS["create.after"]
chaos.points.POINTS["create.after"] = dataclasses.replace(point, function="LocalStore.gone")
import headrace_compute.objects.local
print("imported")
"""
    ended = _as_server(tmp_path, program)
    assert ended.returncode == 1
    assert "gone" in ended.stderr
    assert ended.stdout == ""
