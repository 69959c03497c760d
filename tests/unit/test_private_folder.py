import os
import stat
import tempfile
from pathlib import Path

import pytest

from headrace_compute.private_folder import private_folder


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary directory in which others were first."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _is_private(folder: Path) -> bool:
    found = folder.lstat()
    return (
        stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700 and found.st_uid == os.geteuid()
    )


def test_the_folder_is_made_once_and_found_again(shared: Path) -> None:
    assert private_folder("ours") == private_folder("ours") == shared / "ours"
    assert _is_private(shared / "ours")


def test_a_folder_that_is_open_to_others_is_left_and_another_one_made(
    shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (shared / "ours").mkdir()
    (shared / "ours").chmod(0o777)
    folder = private_folder("ours")
    assert folder != shared / "ours"
    assert folder.parent == shared
    assert _is_private(folder)
    assert "is open to others (mode bits 077)" in caplog.text


def test_a_link_is_not_followed(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    (shared / "elsewhere").mkdir(mode=0o700)
    (shared / "ours").symlink_to(shared / "elsewhere")
    assert _is_private(private_folder("ours"))
    assert not list((shared / "elsewhere").iterdir())
    assert "is not a folder" in caplog.text


def test_a_folder_of_somebody_else_is_not_used(
    shared: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shared / "ours").mkdir(mode=0o700)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert private_folder("ours") != shared / "ours"
    assert f"belongs to user {owner}" in caplog.text
