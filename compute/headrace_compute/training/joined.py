"""The features that rows are joined with: asked for, computed, and held for the stages that write."""

from collections.abc import Sequence
from typing import Any

from headrace_compute.features.cut_run import Wanted, features_at_cuts
from headrace_compute.inputs.source import Source
from headrace_compute.inputs.workers import Progress, Workers, each
from headrace_compute.model import Shard
from headrace_compute.training.feature_columns import FEATURE_PARAMS, ask_items, chosen_of, find_items
from headrace_compute.training.held import Drawing
from headrace_compute.training.negatives import SplitPlan, ask_shard
from headrace_compute.training.parameters import SNAPSHOT, SamplingParams


async def join(
    workers: Workers,
    source: Source,
    catalog: Any,
    shards: Sequence[Shard],
    drawing: Drawing,
    plans: Sequence[SplitPlan],
    params: SamplingParams,
    progress: Progress,
) -> list[tuple[Any, ...]]:
    """For each shard the features of its users and those of all items, held; None each without features."""
    if params.with_features is None:
        return [(None, None)] * len(shards)
    asking = [
        workers.hold_each(2, ask_shard, *drawing.of(place, plan))
        for place in range(len(shards))
        for plan in plans
    ]
    of_users, of_items = map(list, zip(*await each("ask", asking, progress), strict=True))
    _, index, _ = drawing.of_all
    if params.with_features == SNAPSHOT:
        of_items.append(await workers.hold(ask_items, index, plans[0].when))
    wanted = Wanted(of_users, of_items, chosen_of(params, "user"), chosen_of(params, "item"), FEATURE_PARAMS)
    tables = await features_at_cuts(workers, source, catalog, shards, wanted, progress)
    found = await workers.hold(find_items, index, *tables.items)
    workers.let_go([*of_users, *of_items, *tables.items])
    return [(users, found) for users in tables.users]
