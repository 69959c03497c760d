"""What every object store must do; each implementation of the seam runs the same suite."""

import errno
import math
import os
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from headrace_compute.errors import StoreFullError, StoreUnavailableError
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import (
    KeyExistsError,
    KeyMissingError,
    LocalStore,
    ObjectStore,
    open_store,
)

pytest_plugins = ["brokers.fixtures"]

RAW, OTHER = "raw-data", "features"


@pytest.fixture
def store(config: StoreConfig) -> ObjectStore:
    return open_store(config)


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
    store.create(f"{RAW}/acme/a", b"one")
    assert store.get(f"{RAW}/acme/a") == b"one"
    assert store.exists(f"{RAW}/acme/a")
    with store.open(f"{RAW}/acme/a") as file:
        assert (file.size(), file.read_at(2, 1)) == (3, b"ne")


@pytest.mark.parametrize("size_bytes", [0, 1, 5 << 20])
def test_objects_have_any_size_and_may_come_from_arrow(store: ObjectStore, size_bytes: int) -> None:
    data = bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256)
    store.create(f"{RAW}/a", pa.py_buffer(data))
    store.put(f"{RAW}/b", pa.py_buffer(data))
    with store.open(f"{RAW}/a") as file:
        assert store.get(f"{RAW}/a") == store.get(f"{RAW}/b") == file.read() == data


def test_an_age_is_that_of_the_last_write(store: ObjectStore) -> None:
    store.put(f"{RAW}/a", b"1")
    time.sleep(1.1)
    assert 1 <= store.age_seconds(f"{RAW}/a") < 60
    started = time.monotonic()
    store.put(f"{RAW}/a", b"2")
    # Stores round to seconds, and a busy machine takes some.
    assert store.age_seconds(f"{RAW}/a") <= time.monotonic() - started + 1
    with pytest.raises(KeyMissingError):
        store.age_seconds(f"{RAW}/b")


def test_a_second_create_fails_and_changes_nothing(store: ObjectStore) -> None:
    store.create(f"{RAW}/a/b", b"first")
    with pytest.raises(KeyExistsError) as caught:
        store.create(f"{RAW}/a/b", b"second")
    assert caught.value.key == f"{RAW}/a/b"
    assert store.get(f"{RAW}/a/b") == b"first"
    assert list(store.list(f"{RAW}/a")) == [f"{RAW}/a/b"]


def test_a_second_create_of_a_large_object_fails_in_the_same_way(store: ObjectStore) -> None:
    store.create(f"{RAW}/a", b"first")
    with pytest.raises(KeyExistsError):
        store.create(f"{RAW}/a", bytes(24 << 20))
    assert store.get(f"{RAW}/a") == b"first"


def test_of_many_concurrent_creates_exactly_one_wins(store: ObjectStore) -> None:
    def create(writer: int) -> bool:
        try:
            store.create(f"{RAW}/log/00000001", b"%d" % writer)
        except KeyExistsError:
            return False
        return True

    with ThreadPoolExecutor(64) as threads:
        won = list(threads.map(create, range(64)))
    assert won.count(True) == 1
    assert store.get(f"{RAW}/log/00000001") == b"%d" % won.index(True)


def test_put_replaces_what_is_there(store: ObjectStore) -> None:
    store.put(f"{RAW}/a/b", b"long first content")
    store.put(f"{RAW}/a/b", b"second")
    assert store.get(f"{RAW}/a/b") == b"second"


def test_copy_makes_an_object_of_its_own(store: ObjectStore) -> None:
    store.create(f"{RAW}/a/b", b"one")
    store.copy(f"{RAW}/a/b", f"{OTHER}/d/e")
    store.delete(f"{RAW}/a/b")
    assert store.get(f"{OTHER}/d/e") == b"one"
    with pytest.raises(KeyMissingError):
        store.copy(f"{RAW}/a/b", f"{RAW}/f")
    store.create(f"{RAW}/a/b", b"two")
    with pytest.raises(KeyExistsError):
        store.copy(f"{RAW}/a/b", f"{OTHER}/d/e")
    assert store.get(f"{OTHER}/d/e") == b"one"


def test_a_missing_object_is_named(store: ObjectStore) -> None:
    store.create(f"{RAW}/folder/b", b"")
    reads: list[Callable[[str], object]] = [store.get, store.open, store.sync]
    for read in reads:
        with pytest.raises(KeyMissingError, match=f"{RAW}/missing"):
            read(f"{RAW}/missing")
    assert not store.exists(f"{RAW}/missing")
    assert not store.exists(f"{RAW}/folder")


def test_list_yields_keys_at_any_depth_in_string_order(store: ObjectStore) -> None:
    names = ["a", "a-b/x", "aa/x", "b/c/d", "b-", "b.c", "z", "ü", "a b%2F+"]
    keys = [f"{RAW}/p/{name}" for name in names]
    for key in [*keys, f"{RAW}/pq/other", f"{OTHER}/p/a"]:
        store.create(key, b"")
    assert list(store.list(f"{RAW}/p")) == list(store.list(f"{RAW}/p/")) == sorted(keys)
    assert list(store.list(f"{RAW}/p/b")) == [f"{RAW}/p/b/c/d"]
    assert list(store.list(f"{RAW}/nowhere")) == []
    assert list(store.list(RAW)) == sorted([*keys, f"{RAW}/pq/other"])
    for key in [*keys, f"{RAW}/p/", f"{RAW}/p/b/c", f"{RAW}/p/~"]:
        assert list(store.list(f"{RAW}/p", after=key)) == sorted(each for each in keys if each > key)


def test_a_folder_may_hold_more_than_one_page_of_keys(store: ObjectStore) -> None:
    keys = [f"{RAW}/p/{number:04}" for number in range(1001)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda key: store.create(key, b""), keys))
    assert list(store.list(f"{RAW}/p")) == keys
    assert list(store.list(f"{RAW}/p", after=keys[0])) == keys[1:]
    assert store.children(f"{RAW}/p") == [f"{number:04}" for number in range(1001)]
    store.delete_all(f"{RAW}/p")
    assert list(store.list(f"{RAW}/p")) == []


def test_room_is_told_or_nothing_is(store: ObjectStore) -> None:
    free = store.free_bytes()
    assert free is None or free > 1 << 20


def test_children_are_the_names_one_level_down(store: ObjectStore) -> None:
    for name in ("p/b/c/d", "p/a", "p/b/e", "q"):
        store.create(f"{RAW}/{name}", b"")
    assert store.children(f"{RAW}/p") == store.children(f"{RAW}/p/") == ["a", "b"]
    assert store.children(RAW) == ["p", "q"]
    assert store.children(f"{RAW}/nowhere") == []


def test_delete_can_be_repeated_and_leaves_no_empty_folder(store: ObjectStore) -> None:
    store.create(f"{RAW}/p/a/b", b"")
    store.create(f"{RAW}/p/c", b"")
    store.delete(f"{RAW}/p/a/b")
    store.delete(f"{RAW}/p/a/b")
    store.delete(f"{RAW}/never/there")
    assert store.children(f"{RAW}/p") == ["c"]
    store.create(f"{RAW}/p/a/b", b"again")
    assert store.get(f"{RAW}/p/a/b") == b"again"


def test_delete_all_spares_what_lies_beside(store: ObjectStore) -> None:
    for name in ("p/a/b", "p/a/c/d", "p/ab"):
        store.create(f"{RAW}/{name}", b"")
    store.delete_all(f"{RAW}/p/a")
    store.delete_all(f"{RAW}/p/a")
    assert list(store.list(f"{RAW}/p")) == [f"{RAW}/p/ab"]


def test_creates_and_deletes_in_one_folder_do_not_disturb_each_other(store: ObjectStore) -> None:
    def churn(worker: int) -> None:
        for _ in range(50):
            store.create(f"{RAW}/p/q/{worker}", b"")
            store.delete(f"{RAW}/p/q/{worker}")
        store.create(f"{RAW}/p/q/{worker}", b"")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(churn, range(4)))
    assert store.children(f"{RAW}/p/q") == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../out", "a/../../out", "a//b", "a/", "./a", ".scratch/a", "a\0b"]
)
def test_keys_that_could_leave_the_store_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        store.create(key, b"")


def test_a_store_is_prepared_and_probed_again_and_again_and_nothing_is_left_behind(
    store: ObjectStore, config: StoreConfig
) -> None:
    for _ in range(2):
        store.prepare()
        store.probe()
    assert [key for bucket in config.buckets for key in store.list(bucket)] == []
    assert store.uri(f"{RAW}/b").endswith(f"/{RAW}/b")


def test_errors_of_keys_survive_pickling() -> None:
    for error in (KeyExistsError("a/b"), KeyMissingError("a/b")):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert (copy.key, str(copy)) == (error.key, str(error))


def test_a_process_opens_one_store_for_each_configuration(config: StoreConfig) -> None:
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
    ]
    if expected is not StoreFullError:
        writes.append(store.prepare)
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
    store.prepare()
    assert not leftover.exists()


def test_what_was_left_half_written_goes_when_it_is_old_while_others_write(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.create("a/b", b"")
    old, young = tmp_path / ".scratch" / "old", tmp_path / ".scratch" / "young"
    for path in (old, young):
        path.write_bytes(b"ha")
    os.utime(old, (time.time() - 61, time.time() - 61))
    store.clear_halves(60)
    assert (old.exists(), young.exists()) == (False, True)
    store.clear_halves(-math.inf)
    assert list((tmp_path / ".scratch").iterdir()) == []
    LocalStore(str(tmp_path / "nowhere")).clear_halves(0)
    assert store.exists("a/b")


def test_a_probe_of_a_folder_waits_for_no_disk_and_tells_of_a_full_one(
    tmp_path: Path, synced: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(str(tmp_path))
    store.prepare()
    synced.clear()
    store.probe()
    assert synced == set()

    def fail(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(StoreFullError) as caught:
        store.probe()
    assert str(tmp_path) not in str(caught.value)
    assert list((tmp_path / ".scratch").iterdir()) == []


def test_a_full_disk_keeps_no_server_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(str(tmp_path))
    store.create("a/b", b"kept")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    store.prepare()
    assert store.get("a/b") == b"kept"


def test_a_folder_that_cannot_be_made_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailableError):
        LocalStore(str(tmp_path / "file" / "store")).prepare()
