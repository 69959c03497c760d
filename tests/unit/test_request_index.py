"""Which versions hold a request: never one too few, whatever was frozen, and what a receipt keeps."""

import json
import time
import zlib
from base64 import b64decode, b64encode
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_compute.delta import request_index
from headrace_compute.delta.receipts import RECEIPTS, Group, Receipt, ReceiptFormatError
from headrace_compute.delta.request_index import RequestIndex

IDS = st.uuids().map(str)
COMMITS = st.lists(st.lists(IDS, min_size=1, max_size=4, unique=True), max_size=30)


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_index, "SEGMENT_IDS", 5)


@given(COMMITS, st.lists(IDS, max_size=5))
def test_every_version_of_an_id_is_named_newest_first(commits: list[list[str]], others: list[str]) -> None:
    index, versions = RequestIndex(), defaultdict[str, list[int]](list)
    for version, ids in enumerate(commits, 1):
        index.add(ids, version)
        for each in ids:
            versions[each].insert(0, version)
    for each, expected in versions.items():
        assert index.versions(each) == expected
    for each in set(others) - versions.keys():
        assert index.versions(each) == []


def test_an_id_in_two_versions_is_found_in_both() -> None:
    index = RequestIndex()
    for version in (7, 9, 9):
        index.add(["0" * 31 + "1"], version)
    assert index.versions("0" * 31 + "1") == [9, 7]


def test_old_ids_go_when_there_are_too_many_but_none_of_the_last_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(request_index, "SEGMENTS", 2)
    index = RequestIndex()
    ids = [f"{number:032x}" for number in range(40)]
    for number, each in enumerate(ids):
        now[0] = number * 180.0  # Twenty in an hour.
        index.add([each], number)
    assert all(index.versions(each) for each in ids[-20:])
    assert not index.versions(ids[0])


@given(st.lists(st.tuples(IDS, st.text(), st.lists(st.text())), max_size=5), st.text())
def test_receipts_come_back_from_a_commit_as_they_went_in(
    each: list[tuple[str, str, list[str]]], rejects: str
) -> None:
    group = Group("g", 5, tuple(Receipt(*one) for one in each), {"file": rejects})
    # A commit's info is JSON text on its way.
    assert Group.from_info(json.loads(json.dumps(group.to_metadata()))) == group


def test_a_commit_without_receipts_is_nobodys_group() -> None:
    assert Group.from_info({"engineInfo": "another writer"}) is None


def test_receipts_of_a_newer_version_are_refused_by_name() -> None:
    info = Group("g", 5).to_metadata()
    body = json.loads(zlib.decompress(b64decode(info[RECEIPTS]))) | {"format_version": 2}
    info[RECEIPTS] = b64encode(zlib.compress(json.dumps(body).encode())).decode()
    with pytest.raises(ReceiptFormatError, match="format version 2; this server reads 1"):
        Group.from_info(info)
