"""Objects in a local folder: each is a file, whole and on disk before it has its name."""

import errno
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from headrace_compute.errors import StoreFullError, StoreUnavailableError
from headrace_compute.objects.keys import KeyExistsError, KeyMissingError, check_key

SCRATCH = ".scratch"
"""Folder of half-written objects; no key lies in it."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

PLACE_ATTEMPTS = 100
"""Attempts to place a file whose folder is being deleted concurrently."""

Names = list[str]


class LocalStore:
    """An ObjectStore in a local folder; the protocol says what each method promises."""

    def __init__(self, root: str) -> None:
        self._root = Path(root).absolute()

    def create(self, key: str, data: bytes | pa.Buffer) -> None:
        """Links a whole file to its name, which fails if the name is taken."""
        with self._guarded("write", key), self._scratch(data) as scratch:
            self._link(scratch, key)

    def copy(self, key: str, target: str) -> None:
        """Gives the file a second name: parts never change, so they can share their bytes."""
        with self._guarded("write", target):
            if not (source := self._path(key)).exists():
                raise KeyMissingError(key)
            self._link(source, target)

    def put(self, key: str, data: bytes | pa.Buffer) -> None:
        """Renames a whole file over the old one."""
        with self._guarded("write", key), self._scratch(data) as scratch:
            path = self._path(key)
            _in_folder(path, lambda: os.replace(scratch, path))

    def get(self, key: str) -> bytes:
        """Reads the file."""
        with self._guarded("read", key):
            return self._path(key).read_bytes()

    def open(self, key: str) -> pa.NativeFile:
        """Opens the file without mapping it: mapped pages would count as the process's memory."""
        with self._guarded("read", key):
            return pa.OSFile(str(self._path(key)))

    def exists(self, key: str) -> bool:
        """Tells whether the file is there; a folder is no object."""
        with self._guarded("read", key):
            return self._path(key).is_file()

    def age_seconds(self, key: str) -> float:
        """By the machine's clock, which also dates its files."""
        with self._guarded("read", key):
            return time.time() - self._path(key).stat().st_mtime

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Walks the folder while it is consumed; objects that come or go meanwhile may be missed."""
        with self._guarded("list", prefix):
            yield from (key for key in self._walk(prefix.rstrip("/")) if key > after)

    def children(self, prefix: str) -> Names:
        """Lists the folder's entries."""
        with self._guarded("list", prefix):
            return sorted(entry.name for entry in _entries(self._path(prefix.rstrip("/"))))

    def delete(self, key: str) -> None:
        """Removes the file and the folders it leaves empty; a crash may bring it back."""
        with self._guarded("delete", key):
            path = self._path(key)
            path.unlink(missing_ok=True)
            self._prune(path.parent)

    def delete_all(self, prefix: str) -> None:
        """Deletes one by one, in key order."""
        for key in list(self.list(prefix)):
            self.delete(key)

    def sync(self, key: str) -> None:
        """Waits for the file and every folder above it, up to the root."""
        with self._guarded("write", key):
            path = self._path(key)
            _fsync(path)
            for folder in path.parents:
                _fsync(folder)
                if folder == self._root:
                    break

    def prepare(self) -> None:
        """Makes the folder, empties the scratch folder, writes to disk. Only while nobody else writes.

        A full disk is no reason not to start: what is stored can be read, and what is dead deleted.
        """
        with self._guarded("write", SCRATCH):
            _make_folder(self._root)
            self.clear_halves(-math.inf)
            try:
                with self._scratch(b"probe"):
                    pass
            except OSError as error:
                if error.errno not in FULL:
                    raise

    def clear_halves(self, older_than_seconds: float) -> None:
        """Deletes old files of the scratch folder, by the machine's clock."""
        with self._guarded("delete", SCRATCH):
            for leftover in _entries(self._root / SCRATCH):
                with suppress(FileNotFoundError):  # Its writer is done with it.
                    if time.time() - leftover.stat().st_mtime > older_than_seconds:
                        os.unlink(leftover.path)

    def probe(self) -> None:
        """Makes and removes a file, without waiting for the disk."""
        path = self._root / SCRATCH / uuid.uuid4().hex
        with self._guarded("write", SCRATCH):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.write_bytes(b"probe")
            finally:
                path.unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        """What the file system leaves to users."""
        with self._guarded("list", SCRATCH):
            found = os.statvfs(self._root)
            return found.f_bavail * found.f_frsize

    def uri(self, key: str) -> str:
        """A file: URI."""
        return self._path(key).as_uri()

    def storage_options(self) -> dict[str, str]:
        """None: deltalake opens files by itself."""
        return {}

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    def _link(self, source: Path, key: str) -> None:
        path = self._path(key)
        try:
            _in_folder(path, lambda: os.link(source, path))
        except FileExistsError:
            raise KeyExistsError(key) from None

    @contextmanager
    def _scratch(self, data: bytes | pa.Buffer) -> Iterator[Path]:
        """A file of its own holding `data`, on disk; gone afterwards."""
        path = self._root / SCRATCH / uuid.uuid4().hex
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _walk(self, prefix: str) -> Iterator[str]:
        """String order of whole keys: a folder sorts as its name with the slash."""
        entries = [entry.name + "/" * entry.is_dir() for entry in _entries(self._path(prefix))]
        for name in sorted(entries):
            if name.endswith("/"):
                yield from self._walk(f"{prefix}/{name[:-1]}")
            else:
                yield f"{prefix}/{name}"

    def _prune(self, folder: Path) -> None:
        """Removes folders that became empty, so that a folder without objects is no child."""
        with suppress(OSError):
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent

    @contextmanager
    def _guarded(self, verb: str, key: str) -> Iterator[None]:
        """Turns errors of the system into ours; the path they name stays here."""
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise KeyMissingError(key) from None
        except OSError as error:
            cause = os.strerror(error.errno) if error.errno else type(error).__name__
            message = f"The store cannot {verb} {key}: {cause}."
            if error.errno in FULL:
                raise StoreFullError(f"{message} Free some space.") from error
            raise StoreUnavailableError(message) from error


def _in_folder(path: Path, place: Callable[[], None]) -> None:
    """Places a file in its folder, durably; a delete may take the empty folder away meanwhile."""
    for _ in range(PLACE_ATTEMPTS):
        try:
            _make_folder(path.parent)
        except (FileNotFoundError, FileExistsError):
            # mkdir finds the folder, and finds it gone when it looks whether it is one.
            continue
        try:
            place()
        except FileNotFoundError:
            continue
        _fsync(path.parent)
        return
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder; none where there is no folder."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return list(entries)
    return []


def _make_folder(folder: Path) -> None:
    """Makes a folder and those above it, each of them durable."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _fsync(folder.parent)


def _fsync(path: Path) -> None:
    """Waits until a file or a folder's entries are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
