"""A folder below the temporary directory that nobody but its owner enters, whoever was there first."""

import logging
import os
import stat
import tempfile
from pathlib import Path

_log = logging.getLogger(__name__)


def private_folder(name: str) -> Path:
    """The folder `name` below the temporary directory, made with mode 0700 if it is missing.

    Anybody may make a folder there. One that is a link, belongs to somebody else, or is open to others is not
    touched: a fresh one with a random name takes its place, and the log says why.

    Raises:
        OSError: Neither can be made.
    """
    folder = Path(tempfile.gettempdir()) / name
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if fault := _fault(folder):
            fresh = Path(tempfile.mkdtemp(prefix=f"{name}-"))
            _log.warning("%s %s; %s is used instead. Remove it if it is yours.", folder, fault, fresh)
            return fresh
    return folder


def _fault(folder: Path) -> str:
    """What keeps others from being kept out of a folder; empty if nothing does."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return "is not a folder"
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}"
    if open_to := stat.S_IMODE(found.st_mode) & 0o077:
        return f"is open to others (mode bits {open_to:03o})"
    return ""
