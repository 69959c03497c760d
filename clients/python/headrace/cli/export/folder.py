"""A folder that is there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.cli.export.undoing import undoing


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Gives a folder beside it to write into, which takes its name at the end; what ends before removes it.

    Raises:
        ValueError: The folder is there already, or another export is under way.
        OSError: It cannot be written.
    """
    if folder.exists():
        raise ValueError(f"{str(folder)!r} is there already; name a folder that is not.")
    unfinished = folder.with_name(folder.name + ".part")
    try:
        unfinished.mkdir(parents=True)
    except FileExistsError:
        raise ValueError(
            f"{str(unfinished)!r} is there: another export is under way, or was killed; then remove it."
        ) from None
    with undoing(lambda: shutil.rmtree(unfinished, ignore_errors=True)):
        yield unfinished
        os.rename(unfinished, folder)
