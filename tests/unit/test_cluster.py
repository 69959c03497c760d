"""What a local Ray leaves in its folder."""

import os
import subprocess
import sys
from pathlib import Path

from headrace_compute.workers.cluster import clear_sessions


def test_sessions_go_whose_starters_are_gone_and_no_others(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = tmp_path / f"session_2026-01-01_00-00-00_000000_{ended.pid}"
    (dead / "spilled").mkdir(parents=True)
    living = tmp_path / f"session_2026-01-01_00-00-00_000001_{os.getpid()}"
    living.mkdir()
    latest = tmp_path / "session_latest"
    latest.symlink_to(living)
    clear_sessions(tmp_path)
    assert set(tmp_path.iterdir()) == {living, latest}


def test_a_folder_that_is_missing_holds_nothing_to_clear(tmp_path: Path) -> None:
    clear_sessions(tmp_path / "missing")
