"""The driver of features at many cut times: the order of its stages, and what stays with the workers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace_compute.features.cuts import (
    add_overalls,
    item_cuts,
    item_points,
    shards_of_items,
    split_items,
    split_users,
    user_cuts,
)
from headrace_compute.features.feature import Feature
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.inputs.source import Source
from headrace_compute.inputs.workers import Progress, Workers, each
from headrace_compute.model import Shard


@dataclass(frozen=True)
class Wanted:
    """What features are wanted, of whom, before which instants.

    Attributes:
        users: Tables or held results: user_id and cut, in any order, the same as often as one likes.
        items: The same with item_id.
        user_features, item_features: The columns; of none that is not among them anything is computed.
        params: What windows, weights and so on are.
    """

    users: Sequence[Any]
    items: Sequence[Any]
    user_features: tuple[Feature, ...]
    item_features: tuple[Feature, ...]
    params: FeatureParams


@dataclass(frozen=True)
class CutTables:
    """Held results, one for each shard: `cuts_schema_of`, by bucket, id and cut, each pair once."""

    users: Sequence[Any]
    items: Sequence[Any]


async def features_at_cuts(
    workers: Workers,
    source: Source,
    catalog: Any,
    shards: Sequence[Shard],
    wanted: Wanted,
    progress: Progress = lambda step, done, total: None,
) -> CutTables:
    """Features of users and items before many instants, in one pass over a source.

    Args:
        workers: Where stages run.
        source: What was read, with all events before the latest of the cuts; its shares are let go.
        catalog: The current catalog, or what holds it; None if there is none.
        shards: The plan that the source was read by; any gives the same rows.
        wanted: Of whom, and when.
        progress: Told of every shard of a step.
    """
    params, numbering = wanted.params, source.numbering
    asked_users = await workers.hold_each(len(shards), split_users, shards, *wanted.users)
    splitting = workers.hold_each(1 + len(shards), split_items, shards, numbering, *wanted.items)
    cuts_us, *asked_items = await splitting
    homes = await workers.hold(shards_of_items, shards, numbering)

    async def users(shard: Shard, asked: Any, share: Sequence[Any]) -> Sequence[Any]:
        how = (params, wanted.user_features, asked, len(shards), homes, numbering)
        held = await workers.hold_each(1 + len(shards), user_cuts, shard, *how, *share)
        workers.let_go(share)
        return held

    of_users = await each("users", list(map(users, shards, asked_users, source.shares)), progress)
    events = [[held[1 + number] for held in of_users] for number in range(len(shards))]

    async def points(shard: Shard, asked: Any, rows: Sequence[Any]) -> Sequence[Any]:
        how = (params, wanted.item_features, cuts_us, asked, numbering)
        held = await workers.hold_each(2, item_points, shard, *how, *rows)
        workers.let_go(rows)
        return held

    of_items = await each("items", list(map(points, shards, asked_items, events)), progress)
    overalls = await workers.hold(add_overalls, wanted.item_features, *(held for held, _ in of_items))

    async def items(shard: Shard, asked: Any, held: Any) -> Any:
        how = (params, wanted.item_features, asked, catalog, numbering, overalls)
        made = await workers.hold(item_cuts, shard, *how, held)
        workers.let_go([held])
        return made

    held_items = [held for _, held in of_items]
    made = await each("finish", list(map(items, shards, asked_items, held_items)), progress)
    return CutTables([held for held, *_ in of_users], made)
