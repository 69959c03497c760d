"""What every object store must do; each implementation of the seam runs the same suite."""

import errno
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace_compute.errors import StoreFullError, StoreUnavailableError
from headrace_compute.model import StoreConfig
from headrace_compute.storage.store import (
    KeyExistsError,
    KeyMissingError,
    LocalStore,
    ObjectStore,
    open_store,
)


@pytest.fixture(params=["local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return {"local": lambda: LocalStore(str(tmp_path / "store"))}[request.param]()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Inodes of what was fsynced while the test ran."""
    inodes: set[int] = set()
    real = os.fsync

    def spy(descriptor: int) -> None:
        inodes.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    return inodes


def test_what_was_created_is_read_back(store: ObjectStore) -> None:
    store.create("raw/acme/a", b"one")
    assert store.get("raw/acme/a") == b"one"
    assert store.exists("raw/acme/a")
    with store.open("raw/acme/a") as file:
        assert (file.size(), file.read_at(2, 1)) == (3, b"ne")


def test_a_second_create_fails_and_changes_nothing(store: ObjectStore) -> None:
    store.create("a/b", b"first")
    with pytest.raises(KeyExistsError) as caught:
        store.create("a/b", b"second")
    assert caught.value.key == "a/b"
    assert store.get("a/b") == b"first"
    assert list(store.list("a")) == ["a/b"]


def test_of_many_concurrent_creates_exactly_one_wins(store: ObjectStore) -> None:
    def create(writer: int) -> bool:
        try:
            store.create("log/00000001", b"%d" % writer)
        except KeyExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        won = list(threads.map(create, range(64)))
    assert won.count(True) == 1
    assert store.get("log/00000001") == b"%d" % won.index(True)


def test_put_replaces_what_is_there(store: ObjectStore) -> None:
    store.put("a/b", b"long first content")
    store.put("a/b", b"second")
    assert store.get("a/b") == b"second"


def test_copy_makes_an_object_of_its_own(store: ObjectStore) -> None:
    store.create("a/b", b"one")
    store.copy("a/b", "c/d/e")
    store.delete("a/b")
    assert store.get("c/d/e") == b"one"
    with pytest.raises(KeyMissingError):
        store.copy("a/b", "f")
    store.create("a/b", b"two")
    with pytest.raises(KeyExistsError):
        store.copy("a/b", "c/d/e")
    assert store.get("c/d/e") == b"one"


def test_a_missing_object_is_named(store: ObjectStore) -> None:
    store.create("a/folder/b", b"")
    reads: list[Callable[[str], object]] = [store.get, store.open, store.sync]
    for read in reads:
        with pytest.raises(KeyMissingError, match="a/missing"):
            read("a/missing")
    assert not store.exists("a/missing")
    assert not store.exists("a/folder")


def test_list_yields_keys_at_any_depth_in_string_order(store: ObjectStore) -> None:
    keys = ["p/a", "p/a-b/x", "p/aa/x", "p/b/c/d", "p/b-", "p/b.c", "p/z"]
    for key in [*keys, "pq/other"]:
        store.create(key, b"")
    assert list(store.list("p")) == list(store.list("p/")) == sorted(keys)
    assert list(store.list("p/b")) == ["p/b/c/d"]
    assert list(store.list("nowhere")) == []


def test_children_are_the_names_one_level_down(store: ObjectStore) -> None:
    for key in ("p/b/c/d", "p/a", "p/b/e", "q"):
        store.create(key, b"")
    assert store.children("p") == store.children("p/") == ["a", "b"]
    assert store.children("nowhere") == []


def test_delete_can_be_repeated_and_leaves_no_empty_folder(store: ObjectStore) -> None:
    store.create("p/a/b", b"")
    store.create("p/c", b"")
    store.delete("p/a/b")
    store.delete("p/a/b")
    store.delete("never/there")
    assert store.children("p") == ["c"]
    store.create("p/a/b", b"again")
    assert store.get("p/a/b") == b"again"


def test_delete_all_spares_what_lies_beside(store: ObjectStore) -> None:
    for key in ("p/a/b", "p/a/c/d", "p/ab"):
        store.create(key, b"")
    store.delete_all("p/a")
    store.delete_all("p/a")
    assert list(store.list("p")) == ["p/ab"]


def test_creates_and_deletes_in_one_folder_do_not_disturb_each_other(store: ObjectStore) -> None:
    def churn(worker: int) -> None:
        for _ in range(50):
            store.create(f"p/q/{worker}", b"")
            store.delete(f"p/q/{worker}")
        store.create(f"p/q/{worker}", b"")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(churn, range(4)))
    assert store.children("p/q") == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../out", "a/../../out", "a//b", "a/", "./a", ".scratch/a", "a\0b"]
)
def test_keys_that_could_leave_the_store_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        store.create(key, b"")


def test_a_store_can_be_probed_and_leaves_nothing_behind(store: ObjectStore) -> None:
    store.check_writable()
    store.clean()
    assert store.uri("a/b").endswith("/a/b")


def test_errors_of_keys_survive_pickling() -> None:
    for error in (KeyExistsError("a/b"), KeyMissingError("a/b")):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert (copy.key, str(copy)) == (error.key, str(error))


def test_a_process_opens_one_store_for_each_configuration(tmp_path: Path) -> None:
    config = StoreConfig(str(tmp_path))
    assert open_store(config) is open_store(pickle.loads(pickle.dumps(config)))


@pytest.mark.parametrize("write", ["create", "put"])
def test_a_local_write_is_on_disk_with_every_new_folder(tmp_path: Path, synced: set[int], write: str) -> None:
    getattr(LocalStore(str(tmp_path)), write)("a/b/c", b"data")
    for path in (tmp_path, tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/c"):
        assert path.stat().st_ino in synced, path


def test_sync_covers_the_file_and_every_folder_up_to_the_root(tmp_path: Path, synced: set[int]) -> None:
    (tmp_path / "t/_delta_log").mkdir(parents=True)
    (tmp_path / "t/_delta_log/0.json").write_bytes(b"{}")
    LocalStore(str(tmp_path)).sync("t/_delta_log/0.json")
    for path in (tmp_path, tmp_path / "t", tmp_path / "t/_delta_log", tmp_path / "t/_delta_log/0.json"):
        assert path.stat().st_ino in synced, path


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, StoreFullError),
        (errno.EDQUOT, StoreFullError),
        (errno.EIO, StoreUnavailableError),
        (errno.EACCES, StoreUnavailableError),
    ],
)
def test_errors_of_the_disk_are_typed_and_hide_the_servers_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: type[Exception]
) -> None:
    store = LocalStore(str(tmp_path))

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code), str(tmp_path / "secret"))

    monkeypatch.setattr(os, "fsync", fail)
    writes: list[Callable[[], None]] = [
        lambda: store.create("a/b", b"x"),
        lambda: store.put("a/b", b"x"),
        store.check_writable,
    ]
    for write in writes:
        with pytest.raises(expected) as caught:
            write()
        assert str(tmp_path) not in str(caught.value)
        assert os.strerror(code) in str(caught.value)
    assert not store.exists("a/b")
    assert list((tmp_path / ".scratch").iterdir()) == []


def test_what_a_killed_writer_left_is_invisible_and_can_be_cleaned(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.create("a/b", b"")
    leftover = tmp_path / ".scratch" / "half-written"
    leftover.write_bytes(b"ha")
    assert list(store.list("a")) == ["a/b"]
    store.clean()
    assert not leftover.exists()
    assert store.exists("a/b")
