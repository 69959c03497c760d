"""The room that a features run asks for, shard by shard; its workers are pretended."""

from typing import Any

import pytest

from headrace_compute.errors import StoreFullError
from headrace_compute.features.aggregate import UserShard, forecast_items, user_shard
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.run import make_features, tell
from headrace_compute.features.snapshot import add_partials
from headrace_compute.model import Part, Shard
from headrace_compute.sink import PartSink

SHARDS = [Shard(n, n + 1) for n in range(8)]


class _Workers:
    """Each shard's users take 1,000 bytes, and all items 500."""

    async def run(self, stage: Any, *args: Any) -> Any:
        if stage is forecast_items:
            return 500
        if stage is tell:
            return UserShard((Part(key="k", rows=1, size_bytes=1000, checksum="", stats={}),), 10)
        raise AssertionError("items are written after all shards")

    async def hold(self, stage: Any, *args: Any) -> Any:
        assert stage is not add_partials

    async def hold_each(self, count: int, stage: Any, *args: Any) -> Any:
        assert stage is user_shard
        return [None] * count

    def let_go(self, held: Any) -> None:
        assert not held

    async def put(self, value: Any) -> Any:
        raise AssertionError("nothing is shared")


async def test_the_first_shard_tells_what_all_of_them_and_the_items_take() -> None:
    workers, told = _Workers(), list[tuple[int, int]]()

    async def admit(needed_bytes: int, written_bytes: int) -> None:
        told.append((needed_bytes, written_bytes))
        if written_bytes == 3000:
            raise StoreFullError("full")

    with pytest.raises(StoreFullError):
        sinks = PartSink("u"), PartSink("i")
        await make_features(workers, (), (), SHARDS, 0, FeatureParams(), *sinks, admit=admit)
    assert told[:3] == [(8500, 1000), (8500, 2000), (8500, 3000)]
