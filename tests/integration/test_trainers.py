"""What trainers make of Headrace's data: PyTorch, RecBole, Hugging Face's datasets.

They are large, so they have an environment of their own, `.trainers`, which `make trainers` installs.
"""

import json
import subprocess
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from harness.server import Server
from harness.training import lay_dataset

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".trainers" / "bin" / "python"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not PYTHON.exists(), reason="`make trainers` installs the trainers"),
]


def told(script: str, *arguments: str | Path) -> Any:
    """What a script of tests/trainers prints, as JSON."""
    ran = subprocess.run(
        [PYTHON, ROOT / "tests" / "trainers" / script, *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3_000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_pytorch_gets_each_row_once_in_one_order_however_many_workers_and_stops(
    server: Server, tenant: str
) -> None:
    rows = lay_dataset(server, tenant, "mine", [("train", 301), ("valid", 9)])["train"]
    found = told("loads.py", server.address, tenant, "mine")
    runs = list(found["runs"].values())
    assert len(runs) == 3
    assert runs[0] == runs[1] == runs[2]
    for epoch in range(found["epochs"]):
        halves = [batches[len(batches) // 2 * epoch :][: len(batches) // 2] for batches in runs[0]]
        assert Counter(chain.from_iterable(chain.from_iterable(halves))) == Counter(rows)
