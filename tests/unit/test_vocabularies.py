"""Vocabularies that several servers extend at once, each with its own services on one store."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from headrace_compute.delta import drafts, tables
from headrace_compute.inputs.workers import InProcess
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.training.vocabulary import CLAIMS_SCHEMA, write_new_ids
from headrace_compute.workers.pool import Pool
from headrace_server.events.relay_process import RelayProcess
from headrace_server.maintenance import Maintenance
from headrace_server.runs.vocabularies import GrowingVocabularies, PinnedVocabularies
from headrace_server.services import Services
from headrace_server.settings import Settings


class _NoRelay:
    def notify(self, tenant: str, table: str) -> None: ...


class Interrupted(InProcess):
    """Lets others do something between numbering and committing."""

    def __init__(self, config: StoreConfig, meanwhile: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(config)
        self._meanwhile = meanwhile

    async def run(self, stage: Any, *args: Any) -> Any:
        found = await super().run(stage, *args)
        if stage is write_new_ids:
            await self._meanwhile()
        return found


def server(root: Path) -> Services:
    settings = Settings(_env_file=None, data_dir=root)  # type: ignore[call-arg]
    none, relay = cast(Pool, None), cast(RelayProcess, _NoRelay())
    return Services(settings, settings.store(), none, relay, Maintenance(none, "test"))


def claims(**first_us: int) -> pa.Table:
    return pa.table([list(first_us), list(first_us.values())], schema=CLAIMS_SCHEMA)


def indices(vocabulary: pa.Table) -> dict[str, int]:
    return dict(zip(vocabulary[0].to_pylist(), vocabulary[1].to_pylist(), strict=True))


def left(config: StoreConfig) -> tuple[list[str], list[str]]:
    """Drafts, and parts that no version of the vocabulary names."""
    key = tables.vocabulary_key(config, "t", "item")
    named = {file.key for file in tables.open_table(config, key).files}
    written = {f"{key}/{name}" for name in open_store(config).children(key) if name.endswith(".parquet")}
    return list(drafts.entries(config)), sorted(written - named)


async def test_who_comes_second_numbers_from_the_version_that_came_between(tmp_path: Path) -> None:
    ours, theirs = server(tmp_path), server(tmp_path)
    waiting = [claims(b=2, c=3), claims(z=9)]

    async def extend() -> None:
        if waiting:
            await GrowingVocabularies(theirs, InProcess(theirs.config), "t").having("item", [waiting.pop(0)])

    vocabularies = GrowingVocabularies(ours, Interrupted(ours.config, extend), "t")
    found = await vocabularies.having("item", [claims(a=1, c=3), claims(d=0)])
    # Twice others were first: c has their number, and ours follow in the order of their first events.
    assert indices(found) == {"b": 1, "c": 2, "z": 3, "d": 4, "a": 5}
    assert vocabularies.used["item"].version == 3
    assert left(ours.config) == ([], [])
    again = await vocabularies.having("item", [claims(d=0)])
    assert (indices(again), vocabularies.used["item"].version) == (indices(found), 3)


async def test_those_of_a_version_are_had_again(tmp_path: Path) -> None:
    services = server(tmp_path)
    growing = GrowingVocabularies(services, InProcess(services.config), "t")
    first = await growing.having("user", [claims(a=1)])
    used = dict(growing.used)
    await growing.having("user", [claims(b=1)])
    pinned = PinnedVocabularies(InProcess(services.config), used)
    assert indices(await pinned.having("user", [])) == indices(first) == {"a": 1}


@pytest.mark.parametrize("servers", [2, 7])
async def test_however_many_extend_it_no_integer_is_given_twice_and_none_left_out(
    tmp_path: Path, servers: int
) -> None:
    some = random.Random(servers)
    wanted = [{f"i{some.randrange(60)}": some.randrange(9) for _ in range(20)} for _ in range(servers)]

    async def extend(ids: dict[str, int]) -> dict[str, int]:
        services = server(tmp_path)

        async def linger() -> None:
            await asyncio.sleep(some.random() / 50)

        workers = Interrupted(services.config, linger)
        return indices(await GrowingVocabularies(services, workers, "t").having("item", [claims(**ids)]))

    found: Sequence[dict[str, int]] = await asyncio.gather(*map(extend, wanted))
    config = server(tmp_path).config
    last = await GrowingVocabularies(server(tmp_path), InProcess(config), "t").having("item", [claims(i0=0)])
    whole = indices(last)
    assert sorted(whole.values()) == list(range(1, len(whole) + 1))
    for ids, had in zip(wanted, found, strict=True):
        assert ids.keys() <= had.keys()
        assert had.items() <= whole.items()
    assert left(config) == ([], [])


async def test_what_a_dead_server_leaves_is_cleared_and_does_no_harm(tmp_path: Path) -> None:
    services = server(tmp_path)
    await GrowingVocabularies(services, InProcess(services.config), "t").having("item", [claims(a=1)])

    async def die() -> None:
        raise asyncio.CancelledError

    dying = GrowingVocabularies(services, Interrupted(services.config, die), "t")
    with pytest.raises(asyncio.CancelledError):
        await dying.having("item", [claims(b=2)])
    (draft,), (part,) = left(services.config)
    assert drafts.clear(services.config, draft) == 1
    assert left(services.config) == ([], [])
    assert not open_store(services.config).exists(part)
    found = await GrowingVocabularies(services, InProcess(services.config), "t").having("item", [claims(c=3)])
    assert indices(found) == {"a": 1, "c": 2}
