"""The committed stubs are what the contract generates."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "clients" / "python" / "headrace" / "v1"


def test_generating_the_stubs_again_changes_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "protos" / "generate.py"), str(tmp_path)], check=True)
    generated = {path.name: path.read_text() for path in (tmp_path / "headrace" / "v1").iterdir()}
    committed = {
        path.name: path.read_text() for path in COMMITTED.glob("*_pb2*.py*") if path.suffix in (".py", ".pyi")
    }
    assert generated.keys() == committed.keys()
    stale = [name for name, text in generated.items() if committed[name] != text]
    assert stale == [], "run `make proto` and commit what it writes"
