"""Held results on a real Ray: errors of stages that give several, and results that were let go."""

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_stages_that_give_several_fail_as_others_and_what_is_let_go_is_made_again(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "harness.held_stages", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=150,
        check=True,
    )
    seen = json.loads(ran.stdout.splitlines()[-1])
    # Whether it fails before what it gives, amid it or behind it.
    assert seen["failures"] == [{"field": "x"}] * 3
    assert seen["sum"] == 111
    assert seen["let_go"] == [False, True, True, True]
    assert seen["again"] == 21
    assert seen["kept"] == 11
    # Features at many cut times hold what most of their stages give.
    assert sum(seen["cuts"]) == 100
    assert seen["same"]
