"""The features that rows are joined with: computed, and held for the stages that write."""

from collections.abc import Sequence
from typing import Any

from headrace_compute.features.cut_run import Wanted, features_at_cuts
from headrace_compute.features.snapshot import add_partials
from headrace_compute.features.totals import Totals
from headrace_compute.inputs.source import Source
from headrace_compute.inputs.workers import Progress, Workers, each
from headrace_compute.model import Shard
from headrace_compute.training.feature_columns import (
    FEATURE_PARAMS,
    chosen_of,
    find_items,
    find_users,
    snapshot_items,
)
from headrace_compute.training.held import Drawing, HeldShard
from headrace_compute.training.negatives import SplitPlan, ask_shard
from headrace_compute.training.parameters import SamplingParams


async def join(
    workers: Workers,
    source: Source,
    catalog: Any,
    shards: Sequence[Shard],
    drawing: Drawing,
    plans: Sequence[SplitPlan],
    params: SamplingParams,
    instant_us: int | None,
    progress: Progress,
) -> list[tuple[Any, ...]]:
    """For each shard the features of its users and those of all items, held; None each without features.

    Args:
        instant_us: That of a snapshot, which shards were folded with.
    """
    if params.with_features is None:
        return [(None, None)] * len(shards)
    if instant_us is not None:
        return await _of_instant(workers, source, catalog, drawing.shards, params, instant_us)
    return await _of_days(workers, source, catalog, shards, drawing, plans, params, progress)


async def _of_instant(
    workers: Workers,
    source: Source,
    catalog: Any,
    held: Sequence[HeldShard],
    params: SamplingParams,
    instant_us: int,
) -> list[tuple[Any, ...]]:
    totals = Totals(workers, add_partials, chosen_of(params, "item"))
    for shard in held:
        await totals.add(shard.items)
    how = (params, instant_us, catalog, source.numbering)
    items = await workers.hold(snapshot_items, *how, await totals.sum())
    return [(shard.users, items) for shard in held]


async def _of_days(
    workers: Workers,
    source: Source,
    catalog: Any,
    shards: Sequence[Shard],
    drawing: Drawing,
    plans: Sequence[SplitPlan],
    params: SamplingParams,
    progress: Progress,
) -> list[tuple[Any, ...]]:
    asking = [
        workers.hold_each(2, ask_shard, *drawing.of(place, plan))
        for place in range(len(shards))
        for plan in plans
    ]
    of_users, of_items = map(list, zip(*await each("ask", asking, progress), strict=True))
    wanted = Wanted(of_users, of_items, chosen_of(params, "user"), chosen_of(params, "item"), FEATURE_PARAMS)
    tables = await features_at_cuts(workers, source, catalog, shards, wanted, progress)
    _, index, _ = drawing.of_all
    items = await workers.hold(find_items, index, *tables.items)
    users = [
        await workers.hold(find_users, shard.views[0][1], table)
        for shard, table in zip(drawing.shards, tables.users, strict=True)
    ]
    workers.let_go([*of_users, *of_items, *tables.users, *tables.items])
    return [(found, items) for found in users]
