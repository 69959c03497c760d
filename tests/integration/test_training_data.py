"""Training data as trainers read it, from a real server: each row once an epoch, however often they stop."""

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from harness.phoenix import Phoenix
from harness.server import Server
from harness.training import RATIO, lay_dataset, sample_without_valid

from headrace import AsyncClient, Client, errors
from headrace.training.order import HELD_ROWS

PARTS = [("train", 500), ("train", 301), ("valid", 40)]
SEED = 11


def names(batch: pa.RecordBatch) -> list[str]:
    return [f"{row['user_id']} {row['item_id']}" for row in batch.to_pylist()]


def in_turns(shares: Sequence[Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """What several workers make, one batch of each at a time, as a DataLoader hands them out."""
    waiting = list(shares)
    while waiting:
        for share in list(waiting):
            batch = next(share, None)
            if batch is None:
                waiting.remove(share)
            else:
                yield batch


@pytest.fixture
def laid(server: Server, tenant: str) -> list[str]:
    """A training set `mine`; the rows of its split train."""
    return lay_dataset(server, tenant, "mine", PARTS)["train"]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_after_any_stop_a_trainer_goes_on_with_the_next_row(
    client: Client, tenant: str, laid: list[str], workers: int
) -> None:
    """50 stops over 2 ranks and some epochs, each followed by a loader that knows the saved state alone."""
    options: dict[str, Any] = {"split": "train", "shuffle_seed": SEED, "batch_rows": 100, "ranks": 2}
    chance, epochs, of_ranks = random.Random(workers), 3, list[list[list[str]]]()
    for rank in range(2):
        whole = client.training_data(tenant, "mine", rank=rank, **options)
        calm = [[names(batch) for batch in whole] for _ in range(epochs)]
        of_ranks.append([list(itertools.chain.from_iterable(epoch)) for epoch in calm])
        stops = sorted(chance.sample(range(1, epochs * len(whole)), 25))
        saved, found = None, list[list[str]]()
        for begin, end in itertools.pairwise([0, *stops, epochs * len(whole)]):
            data = client.training_data(tenant, "mine", rank=rank, **options)
            if saved is not None:
                data.load_state_dict(json.loads(saved))
            while len(found) < end:
                shares = [data.batches(worker, max(1, workers)) for worker in range(max(1, workers))]
                made = iter(data) if workers == 0 else in_turns(shares)
                for batch in itertools.islice(made, end - len(found)):
                    found.append(names(batch))
                    if workers:
                        data.advance()
            saved = json.dumps(data.state_dict())
            assert begin < end == len(found)
        assert found == list(itertools.chain.from_iterable(calm))
    for epoch in range(epochs):
        assert Counter(of_ranks[0][epoch] + of_ranks[1][epoch]) == Counter(laid)
    assert of_ranks[0][0] != of_ranks[0][1]


def test_groups_stay_whole_where_none_is_short(client: Client, tenant: str, laid: list[str]) -> None:
    size = 1 + RATIO
    data = client.training_data(
        tenant, "mine", split="train", shuffle_seed=SEED, batch_rows=20 * size, group_rows=size
    )
    rows = pa.Table.from_batches(list(data))
    assert rows["label"].to_pylist() == [1.0, 0.0, 0.0, 0.0, 0.0] * (rows.num_rows // size)
    found = [names(batch) for batch in rows.to_batches()]
    assert Counter(itertools.chain.from_iterable(found)) == Counter(laid)
    with pytest.raises(ValueError, match=r"There are 4,005 rows, which are no groups of 7: some positives"):
        client.training_data(tenant, "mine", split="train", batch_rows=7, group_rows=7)


def test_without_a_seed_rows_come_in_the_order_of_the_table(
    client: Client, tenant: str, laid: list[str]
) -> None:
    data = client.training_data(tenant, "mine", split="train", columns=["item_id", "user_id"], batch_rows=333)
    batches = list(data)
    assert [name for batch in batches for name in names(batch)] == laid
    assert batches[0].schema.names == ["item_id", "user_id"]
    assert (len(data), len(batches), data.rows, data.epoch) == (13, 13, 4_005, 1)
    everything = client.training_data(tenant, "mine")
    assert everything.rows == sum(groups for _, groups in PARTS) * (1 + RATIO)


def test_the_version_is_pinned_and_a_state_goes_on_in_its_own(
    server: Server, client: Client, tenant: str, laid: list[str]
) -> None:
    data = client.training_data(tenant, "mine", split="train", batch_rows=1_000, shuffle_seed=SEED)
    first = names(next(iter(data)))
    state = data.state_dict()
    lay_dataset(server, tenant, "mine", [("train", 9)], generation=1)
    newer = client.training_data(tenant, "mine", split="train", batch_rows=1_000, shuffle_seed=SEED)
    assert (data.version, newer.version, newer.rows) == (1, 2, 45)
    newer.load_state_dict(state)
    assert (newer.version, newer.rows) == (1, 4_005)
    rest = [name for batch in newer for name in names(batch)]
    assert Counter(first + rest) == Counter(laid)


def test_a_state_of_other_batches_is_refused_with_what_to_read_with(
    client: Client, tenant: str, laid: list[str]
) -> None:
    state = client.training_data(tenant, "mine", split="train", shuffle_seed=1, ranks=2).state_dict()
    for option, value in (("shuffle_seed", 2), ("batch_rows", 10), ("ranks", 3), ("split", "valid")):
        options: Any = {"split": "train", "shuffle_seed": 1, "ranks": 2, option: value}
        data = client.training_data(tenant, "mine", **options)
        with pytest.raises(ValueError, match=f"saved with {option} = .*, and here {option} is {value!r}"):
            data.load_state_dict(state)


def test_a_state_whose_version_is_gone_leaves_the_loader_where_it_stood(
    client: Client, tenant: str, laid: list[str]
) -> None:
    data = client.training_data(tenant, "mine", split="train", shuffle_seed=SEED, batch_rows=1_000)
    first = names(next(iter(data)))
    stood = data.state_dict()
    with pytest.raises(errors.VersionNotFoundError):
        data.load_state_dict({**stood, "version": 7, "epoch": 3, "position": 2})
    assert data.state_dict() == stood
    assert Counter(first + [name for batch in data for name in names(batch)]) == Counter(laid)


def test_a_misspelt_option_is_refused(client: Client, tenant: str, laid: list[str]) -> None:
    misspelt: Any = {"shufle_seed": SEED}
    with pytest.raises(TypeError, match="Unknown option 'shufle_seed'; expected one of batch_rows, columns"):
        client.training_data(tenant, "mine", **misspelt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_rows": 10, "group_rows": 3}, "batch_rows must be a multiple of group_rows"),
        ({"batch_rows": 0}, "batch_rows is 0"),
        ({"rank": 2, "ranks": 2}, "rank is 2 of 2 ranks; it must be 0 to 1"),
        ({"shuffle_seed": -1}, "shuffle_seed is -1"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_the_server_is_asked(
    options: Any, message: str
) -> None:
    with Client("127.0.0.1:1") as nowhere, pytest.raises(ValueError, match=message):
        nowhere.training_data("acme", **options)


async def test_the_asyncio_client_gives_the_same_batches(
    server: Server, client: Client, tenant: str, laid: list[str]
) -> None:
    options: dict[str, Any] = {"split": "train", "shuffle_seed": SEED, "batch_rows": 700}
    expected = await asyncio.to_thread(
        lambda: [names(batch) for batch in client.training_data(tenant, "mine", **options)]
    )
    async with AsyncClient(server.address) as aclient:
        data = await aclient.training_data(tenant, "mine", **options)
        found = []
        async for batch in data:
            found.append(names(batch))
            if len(found) == 2:
                break
        again = await aclient.training_data(tenant, "mine", **options)
        await again.load_state_dict(data.state_dict())
        found += [names(batch) async for batch in again]
    assert found == expected


async def test_a_large_split_is_read_in_blocks_and_each_row_comes_once(
    server: Server, client: Client, tenant: str
) -> None:
    groups = HELD_ROWS // 5 // 4
    parts = [("train", groups), ("test", 5), ("train", groups), ("train", 2 * groups + 3)]
    lay_dataset(server, tenant, "large", parts)
    options: dict[str, Any] = {
        "split": "train",
        "columns": ["user_id", "item_id"],
        "shuffle_seed": SEED,
        "batch_rows": 5_000,
    }
    async with AsyncClient(server.address) as aclient:
        data = await aclient.training_data(tenant, "large", **options)
        assert data.rows > HELD_ROWS
        first = []
        async for batch in data:
            first.append(batch)
            if len(first) == 20:
                break
    again = client.training_data(tenant, "large", **options)
    assert list(itertools.islice(again, 20)) == first
    again.load_state_dict(data.state_dict())
    rows = pa.Table.from_batches([*first, *again])
    assert rows.num_rows == data.rows
    assert rows.group_by(["user_id", "item_id"]).aggregate([]).num_rows == data.rows


def test_reads_that_a_server_breaks_off_go_on_behind_the_last_row_in_their_version(
    phoenix: Phoenix, tenant: str
) -> None:
    laid = lay_dataset(phoenix.server, tenant, "mine", [("train", 20_000), ("valid", 300), ("train", 40_000)])
    with Client(phoenix.address) as client:
        data = client.training_data(tenant, "mine", split="valid", shuffle_seed=SEED)
        calm = client.read_table(tenant, "mine", limit=250_000)
        found, loaded = [], list[str]()
        for batch in client.read_batches(tenant, "mine", limit=250_000):
            found.append(batch)
            if len(found) == 3:
                lay_dataset(phoenix.server, tenant, "mine", [("valid", 9)], generation=1)
                phoenix.kill_and_rise()
                loaded = [name for batch in data for name in names(batch)]
        assert pa.Table.from_batches(found).equals(calm)
    assert Counter(loaded) == Counter(laid["valid"])


async def test_a_split_without_rows_is_read_as_no_rows_of_its_columns(
    server: Server, client: Client, tenant: str
) -> None:
    sample_without_valid(client, tenant, "mine")
    train = client.read_table(tenant, "mine", split="train")
    assert train.num_rows
    valid = client.read_table(tenant, "mine", split="valid")
    assert (valid.num_rows, valid.schema) == (0, train.schema)
    columns = ["timestamp", "item_id"]
    for options in ({"offset": 5}, {"limit": 3}, {"columns": columns}):
        found = client.read_table(tenant, "mine", split="valid", **options)
        expected = train.select(columns) if "columns" in options else train
        assert (found.num_rows, found.schema) == (0, expected.schema)
    assert client.read_table(tenant, "mine", offset=10**9).schema == train.schema
    for options in ({}, {"shuffle_seed": SEED, "rank": 1, "ranks": 2, "even_ranks": True}):
        data = client.training_data(tenant, "mine", split="valid", **options)  # type: ignore[arg-type]
        assert (data.rows, len(data), list(data), list(data)) == (0, 0, [], [])
        assert list(data.splits) == ["train", "valid", "test"]
        assert data.splits["valid"] == 0
        data.load_state_dict(data.state_dict())
    async with AsyncClient(server.address) as aclient:
        assert (await aclient.read_table(tenant, "mine", split="valid")).schema == train.schema
        loaded = await aclient.training_data(tenant, "mine", split="valid")
        assert [batch async for batch in loaded] == []
    with pytest.raises(errors.InvalidArgumentError, match="no split 'tset'; it has train, valid, test"):
        client.training_data(tenant, "mine", split="tset")


def test_splits_are_those_of_the_run_whatever_was_done_to_files_since(
    server: Server, client: Client, tenant: str
) -> None:
    sample_without_valid(client, tenant, "mine")
    folder = server.data_dir / "training-data" / tenant / "datasets" / "mine"
    before = client.training_data(tenant, "mine").splits
    DeltaTable(folder).optimize.compact()  # One file of all: nobody can say whose rows it has.
    assert client.training_data(tenant, "mine").version == 2
    with pytest.raises(errors.InvalidArgumentError, match="it has no splits in files of their own"):
        client.training_data(tenant, "mine", split="valid")
    assert client.training_data(tenant, "mine", version=1).splits == before


def test_nobody_at_the_address_is_told_at_once(tenant: str) -> None:
    with Client("127.0.0.1:1") as nowhere, pytest.raises(errors.UnavailableError):
        nowhere.training_data(tenant)
