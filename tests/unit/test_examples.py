"""The examples that need no server run as they are."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_stages_run_on_plain_tables() -> None:
    example = ROOT / "compute" / "examples" / "plain_tables.py"
    ran = subprocess.run(
        [sys.executable, str(example)], capture_output=True, text=True, timeout=120, check=True
    )
    # Seven users; one of them before seven days, and an item.
    assert ran.stdout.count("shape: (7, 4)") == 3
    assert "shape: (12, 4)" in ran.stdout
    assert "0 interactions with items that the catalog lacks" in ran.stdout
