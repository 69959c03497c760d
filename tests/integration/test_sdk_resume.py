"""Uploads through the SDK while a real server is killed and comes back, sync and aio."""

import asyncio
import csv
import os
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from harness.phoenix import Phoenix

import headrace
from headrace import errors
from headrace.sample import Generated, Sample, generate
from headrace.v1 import upload_pb2

pytestmark = pytest.mark.timeout(300)

ROWS = 60_000
COLUMNS = ["user_id", "item_id", "interaction_type", "timestamp", "rating"]

Send = Callable[..., upload_pb2.UploadResult]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    """A small shop, 1 % of it dirty."""
    made = Sample(users=2_000, items=500, interactions=ROWS, seed=5, dirty=0.01)
    return generate(made, tmp_path_factory.mktemp("sample"))


def send_sync(address: str, method: str, *arguments: Any, **options: Any) -> upload_pb2.UploadResult:
    with headrace.Client(address) as client:
        found: upload_pb2.UploadResult = getattr(client, method)(*arguments, **options)
        return found


def send_aio(address: str, method: str, *arguments: Any, **options: Any) -> upload_pb2.UploadResult:
    async def run() -> upload_pb2.UploadResult:
        async with headrace.AsyncClient(address) as client:
            found: upload_pb2.UploadResult = await getattr(client, method)(*arguments, **options)
            return found

    return asyncio.run(run())


@pytest.fixture(params=[send_sync, pytest.param(send_aio, marks=pytest.mark.slow)], ids=["sync", "aio"])
def send(request: pytest.FixtureRequest) -> Send:
    found: Send = request.param
    return found


class Killer:
    """Kills the server whenever another part of the upload is safe.

    Args:
        shares: The parts of the upload, as shares of `total`, after which to do so.
    """

    def __init__(self, phoenix: Phoenix, total: int, *shares: float) -> None:
        self._phoenix = phoenix
        self._places = [share * total for share in shares]
        self.progress: list[headrace.Progress] = []

    def __call__(self, progress: headrace.Progress) -> None:
        self.progress.append(progress)
        if self._places and progress.offset >= self._places[0]:
            del self._places[0]
            self._phoenix.kill_and_rise()

    def check(self, interruptions: int) -> None:
        """Every kill was felt, and progress never went back."""
        assert not self._places
        offsets = [each.offset for each in self.progress]
        assert offsets == sorted(offsets)
        assert sum(each.interruption is not None for each in self.progress) >= interruptions


def table_of(address: str, tenant: str) -> pa.Table:
    with headrace.Client(address) as client:
        table = client.read_table(tenant, "interactions", columns=COLUMNS)
    return table.sort_by([(name, "ascending") for name in COLUMNS])


def counts_of(result: upload_pb2.UploadResult) -> tuple[int, ...]:
    return result.rows_received, result.rows_accepted, result.rows_rejected, result.rows_duplicate


def expected_counts(sample: Generated) -> tuple[int, ...]:
    counts = sample.counts["interactions"]
    names = ("rows_received", "rows_accepted", "rows_rejected", "rows_duplicate")
    return tuple(counts[name] for name in names)


@pytest.fixture(scope="module")
def uninterrupted(reborn: Phoenix, sample: Generated) -> pa.Table:
    address = reborn.rest().address
    result = send_sync(address, "upload", "calm", "interactions", sample.interactions)
    assert counts_of(result) == expected_counts(sample)
    return table_of(address, "calm")


def test_a_file_whose_server_is_killed_again_and_again_gives_the_same_table(
    phoenix: Phoenix, sample: Generated, uninterrupted: pa.Table, send: Send, tenant: str
) -> None:
    places = (0.3, 0.7) if send is send_sync else (0.5,)
    killer = Killer(phoenix, sample.interactions.stat().st_size, *places)
    result = send(phoenix.address, "upload", tenant, "interactions", sample.interactions, on_progress=killer)
    killer.check(interruptions=len(places))
    assert counts_of(result) == expected_counts(sample)
    assert table_of(phoenix.address, tenant).equals(uninterrupted)


@pytest.mark.slow
def test_a_pipe_whose_server_is_killed_gives_the_same_table(
    phoenix: Phoenix, sample: Generated, uninterrupted: pa.Table, send: Send, tenant: str
) -> None:
    content = sample.interactions.read_bytes()
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    killer = Killer(phoenix, len(content), 0.4)
    with os.fdopen(reading, "rb") as pipe:
        result = send(phoenix.address, "upload", tenant, "interactions", pipe, on_progress=killer)
    writer.join()
    killer.check(interruptions=1)
    assert counts_of(result) == expected_counts(sample)
    assert table_of(phoenix.address, tenant).equals(uninterrupted)


def clean_rows(file: Path) -> Iterator[dict[str, object]]:
    with file.open(newline="", errors="surrogateescape") as opened:
        for row in csv.DictReader(opened):
            if None in row or None in row.values() or not row["user_id"].isascii():
                continue
            if row["rating"] in ("", "1.0", "2.5", "5.0"):
                yield {**row, "rating": float(row["rating"]) if row["rating"] else None}


@pytest.mark.parametrize("kind", [pytest.param("iterable", marks=pytest.mark.slow), "async iterable"])
def test_rows_whose_server_is_killed_give_the_same_table(
    phoenix: Phoenix, sample: Generated, tenant: str, kind: str
) -> None:
    rows = list(clean_rows(sample.interactions))
    asked = 0

    def once() -> Iterator[dict[str, object]]:
        nonlocal asked
        for row in rows:
            if asked == 25_000:
                phoenix.kill_and_rise()
            asked += 1
            yield row

    async def aonce() -> AsyncIterator[dict[str, object]]:
        for row in once():
            yield row
            await asyncio.sleep(0)

    calm = send_sync(phoenix.address, "upload_rows", f"{tenant}-calm", "interactions", rows)
    # A block takes 65,536 rows: the first ack comes with the outcome of finish under way.
    killer = Killer(phoenix, len(rows), 0.0001)
    send, source = (send_sync, once()) if kind == "iterable" else (send_aio, aonce())
    result = send(phoenix.address, "upload_rows", tenant, "interactions", source, on_progress=killer)
    killer.check(interruptions=2)
    assert asked == len(rows)
    assert counts_of(result) == counts_of(calm)
    assert table_of(phoenix.address, tenant).equals(table_of(phoenix.address, f"{tenant}-calm"))


def test_a_server_that_stays_away_is_told_with_the_upload_which_goes_on_later(
    phoenix: Phoenix, sample: Generated, uninterrupted: pa.Table, send: Send, tenant: str
) -> None:
    def kill(progress: headrace.Progress) -> None:
        if progress.offset and not progress.interruption:
            phoenix.kill()

    with pytest.raises(headrace.UnavailableError, match=r"given up after 2 s without progress") as lost:
        send(
            phoenix.address,
            "upload",
            tenant,
            "interactions",
            sample.interactions,
            on_progress=kill,
            patience_s=2,
        )
    upload_id = lost.value.metadata["upload_id"]
    safe = int(lost.value.metadata["persisted_offset"])
    assert upload_id in str(lost.value)
    assert 0 < safe < sample.interactions.stat().st_size

    phoenix.rest()
    with headrace.Client(phoenix.address) as client:
        found = client.get_upload(tenant, upload_id)
    assert found.state == upload_pb2.UPLOAD_STATE_OPEN
    assert found.persisted_offset >= safe
    progress: list[headrace.Progress] = []
    result = send(
        phoenix.address,
        "upload",
        tenant,
        "interactions",
        sample.interactions,
        upload_id=upload_id,
        on_progress=progress.append,
    )
    assert next(each.offset for each in progress if each.interruption is None) >= safe
    assert result.upload_id == upload_id
    assert counts_of(result) == expected_counts(sample)
    assert table_of(phoenix.address, tenant).equals(uninterrupted)


def test_another_client_with_the_same_upload_takes_it_over_and_the_older_ends_fenced(
    phoenix: Phoenix, sample: Generated, send: Send, tenant: str
) -> None:
    rows = list(clean_rows(sample.interactions))[:20_000]
    upload_id = str(uuid.uuid4())
    begun, taken_over, fenced = threading.Event(), threading.Event(), threading.Event()

    def older_rows() -> Iterator[dict[str, object]]:
        yield from rows[:10_000]
        begun.set()
        taken_over.wait(60)
        yield from rows[10_000:]

    def newer_rows() -> Iterator[dict[str, object]]:
        yield from rows[:10_000]
        fenced.wait(60)
        yield from rows[10_000:]

    def take_over() -> upload_pb2.UploadResult:
        begun.wait(60)
        options = {"upload_id": upload_id, "on_progress": lambda _: taken_over.set()}
        return send(phoenix.address, "upload_rows", tenant, "interactions", newer_rows(), **options)

    with ThreadPoolExecutor(1) as pool:
        newer = pool.submit(take_over)
        try:
            with pytest.raises(errors.FencedError, match=upload_id):
                send_sync(
                    phoenix.address, "upload_rows", tenant, "interactions", older_rows(), upload_id=upload_id
                )
        finally:
            taken_over.set()
            fenced.set()
        result = newer.result(60)
    assert result.rows_received == 20_000
    assert table_of(phoenix.address, tenant).num_rows == result.rows_accepted
