"""The driver of a sampling run: the order of its stages, and which results stay with the workers.

The one place that knows the order. It runs on any `Workers`: the pool of Ray
actors, or a loop in one process.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace_compute.inputs.source import read_source
from headrace_compute.inputs.workers import Admit, Progress, Workers, admit_all, each
from headrace_compute.model import DataFile, Shard
from headrace_compute.sink import Sink, W
from headrace_compute.training.core_run import count_round, find_core, no_positives, nothing_seen
from headrace_compute.training.dataset import Dataset, rows_of_split
from headrace_compute.training.feature_columns import snapshot_us
from headrace_compute.training.held import Drawing, HeldShard, fold, with_cuts
from headrace_compute.training.items import build_index, measure_index
from headrace_compute.training.joined import join
from headrace_compute.training.negatives import SampledShard, SplitPlan, forecast_shard, sample_shard
from headrace_compute.training.numbered import IdRun, IdTables, Numbered
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.sampler import build_sampler

FORECAST_ROWS = 1 << 20
"""Rows that a training set may have without a forecast of its size: twenty megabytes or so."""


async def make_dataset(
    workers: Workers,
    files: Sequence[DataFile],
    catalog: Any,
    shards: Sequence[Shard],
    as_of_us: int | None,
    params: SamplingParams,
    sink: Sink[W],
    progress: Progress = lambda step, done, total: None,
    admit: Admit = admit_all,
    ids: IdTables[W] | None = None,
) -> Dataset[W]:
    """Makes a training set; committing what its sink wrote is the caller's.

    Args:
        workers: Where stages run.
        files: The interactions.
        catalog: The current catalog, by item_id, or what holds it; None or empty if there is none.
        shards: A plan that covers all buckets; any gives the same rows.
        as_of_us: Exclusive end of the source; None takes all.
        params: What to make.
        sink: Where its rows go.
        progress: Told of every shard of a step.
        admit: Asked before anything is written.
        ids: What to make of its ids, if these get indices.

    Raises:
        StoreFullError: There is no room for it.
        NoInteractionsError: Nothing happened before `as_of_us`.
        NoPositivesError: The core or the positive types left nothing.
    """
    source = await read_source(workers, files, catalog, shards, as_of_us, progress)
    params = await with_cuts(workers, source, shards, params, progress)
    instant_us = snapshot_us(params, as_of_us)
    held = await fold(workers, source, shards, params, instant_us, progress)
    categories_from = catalog if params.same_category_share > 0.0 else None
    counts = (shard.counts for shard in held)
    index = await workers.hold(build_index, source.numbering, categories_from, *counts)
    item_count, candidates = await workers.run(measure_index, index)
    everything, pairs = np.ones(item_count, np.bool_), [shard.core for shard in held]
    whole = await count_round(workers, pairs, everything, 0, progress)
    if whole.pairs == 0:
        raise nothing_seen(params, as_of_us)
    alive, core = await find_core(workers, pairs, everything, params, progress)
    if core.pairs == 0:
        raise no_positives(whole, core, params)

    living = await workers.put(alive)
    drawing = Drawing(held, (living, index, await workers.hold(build_sampler, index, params)))
    plans = _plans(params)
    joined = await join(workers, source, catalog, shards, drawing, plans, params, instant_us, progress)
    numbered: Numbered[W] | None = None
    if ids is not None:
        numbered = await IdRun(workers, ids, source.numbering, living, params, progress).number(held)
    more = [
        (shard.histories, *features, *(numbered.of_shard(place) if numbered else (None, None)))
        for place, (shard, features) in enumerate(zip(held, joined, strict=True))
    ]
    if core.pairs * (1 + params.negative_ratio) > FORECAST_ROWS:
        await admit(await _forecast(workers, drawing, plans, more, progress), 0)
    sampled = await _sample(workers, drawing, plans, more, sink, progress)
    splits = tuple(rows_of_split(plan.name, made) for plan, made in zip(plans, sampled, strict=True))
    if splits[0].positives == 0:
        raise no_positives(whole, core, params)
    users, items = await numbered.write() if numbered else ((), ())
    return Dataset(
        parts=tuple(part for split in sampled for shard in split for part in shard.parts),
        source_pairs=whole.pairs,
        core_pairs=core.pairs,
        core_users=core.users,
        core_items=core.items,
        candidates=candidates,
        splits=splits,
        cuts_us=params.split.cuts_us if params.split else (),
        users=users,
        items=items,
    )


def _plans(params: SamplingParams) -> list[SplitPlan]:
    names = (None,) if params.split is None else params.split.names
    return [SplitPlan(number, name, params.of_split(number == 0)) for number, name in enumerate(names)]


async def _forecast(
    workers: Workers,
    drawing: Drawing,
    plans: Sequence[SplitPlan],
    more: Sequence[tuple[Any, ...]],
    progress: Progress,
) -> int:
    """About how many bytes will be written."""
    forecasts = [
        workers.run(forecast_shard, *drawing.of(place, plan), *columns)
        for place, columns in enumerate(more)
        for plan in plans
    ]
    return sum(await each("forecast", forecasts, progress))


async def _sample(
    workers: Workers,
    drawing: Drawing,
    plans: Sequence[SplitPlan],
    more: Sequence[tuple[Any, ...]],
    sink: Sink[W],
    progress: Progress,
) -> list[tuple[SampledShard[W], ...]]:
    """What the shards made of each split; what is drawn from is let go, shard by shard."""

    async def sample(place: int, shard: HeldShard) -> list[SampledShard[W]]:
        sampled = []
        for plan in plans:
            # The table has its parts in the order of their names.
            name = f"{plan.number}-{plan.name}-{place:04d}" if plan.name else f"{place:04d}"
            drawn = (*drawing.of(place, plan), *more[place])
            sampled.append(await workers.run(sample_shard, sink, name, *drawn))
        workers.let_go([held for view in shard.views for held in view])
        return sampled

    sampling = [sample(place, shard) for place, shard in enumerate(drawing.shards)]
    return list(zip(*await each("sample", sampling, progress), strict=True))
