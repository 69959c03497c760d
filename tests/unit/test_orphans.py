"""What `make attack` counts as left behind."""

import json
from pathlib import Path

from attack.stage import orphans


def _write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_files_that_no_version_and_no_open_upload_names_are_orphans(tmp_path: Path) -> None:
    table = tmp_path / "raw-data/acme/interactions"
    for version, part in enumerate(("a b.parquet", "c.parquet")):
        actions = [{"commitInfo": {}}, {"add": {"path": part.replace(" ", "%20")}}]
        _write(table / f"_delta_log/{version:020d}.json", "\n".join(map(json.dumps, actions)))
        _write(table / part)
    headrace = tmp_path / "raw-data/_headrace"
    for upload in ("open", "over"):
        _write(headrace / f"uploads/acme/{upload}/00000000", '{"key": "processed-data/acme/rejects/r"}')
    _write(tmp_path / "processed-data/acme/rejects/r")
    _write(headrace / "open/acme/open")
    _write(headrace / "uploads/acme/open/sidecars/0")
    _write(table / "open-000000-1.parquet")
    assert orphans(tmp_path) == []

    left = {
        _write(table / "d.parquet"),
        _write(tmp_path / "training-data/acme/datasets/x/run-00001.parquet"),
        _write(headrace / "uploads/acme/over/sidecars/s"),
        _write(headrace / "runs/acme/run"),
        _write(tmp_path / ".scratch/half"),
        _write(table / "_delta_log/_commit_x.json.tmp"),
    }
    assert set(orphans(tmp_path)) == left
