"""The driver of a sampling run: the order of its stages, and which results stay with the workers.

The one place that knows the order. It runs on any `Workers`: the pool of Ray
actors, or a loop in one process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import pyarrow as pa

from headrace_compute.errors import NoPositivesError
from headrace_compute.inputs.events import no_interactions
from headrace_compute.inputs.source import read_source
from headrace_compute.inputs.workers import Admit, Progress, Workers, admit_all, each
from headrace_compute.model import DataFile, Shard
from headrace_compute.sink import Sink, W
from headrace_compute.training.core import CoreRound, core_round, survivors
from headrace_compute.training.items import build_index, measure_index
from headrace_compute.training.negatives import SampledShard, forecast_shard, sample_shard
from headrace_compute.training.pairs import fold_shard
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.sampler import build_sampler

FORECAST_ROWS = 1 << 20
"""Rows that a training set may have without a forecast of its size: twenty megabytes or so."""


@dataclass(frozen=True)
class Dataset(Generic[W]):
    """What a sampling run made; the numbers are those of NegativesResult."""

    parts: tuple[W, ...]
    source_pairs: int
    core_pairs: int
    core_users: int
    core_items: int
    positives: int
    positives_outside_candidates: int
    negatives: int
    negatives_short: int
    candidates: int


async def make_dataset(
    workers: Workers,
    files: Sequence[DataFile],
    catalog: pa.Table | None,
    shards: Sequence[Shard],
    as_of_us: int | None,
    params: SamplingParams,
    sink: Sink[W],
    progress: Progress = lambda step, done, total: None,
    admit: Admit = admit_all,
) -> Dataset[W]:
    """Makes a training set; committing what its sink wrote is the caller's.

    Args:
        workers: Where stages run.
        files: The interactions.
        catalog: The current catalog (item_id), in the order of item_id; None or empty if there is none.
        shards: A plan that covers all buckets; any gives the same rows.
        as_of_us: Exclusive end of the source; None takes all.
        params: What to make.
        sink: Where its rows go.
        progress: Told of every shard of a step.
        admit: Asked before anything is written.

    Raises:
        StoreFullError: There is no room for it.
        NoInteractionsError: Nothing happened before `as_of_us`.
        NoPositivesError: The core or the positive types left nothing.
    """
    source = await read_source(workers, files, catalog, shards, as_of_us, progress)

    async def fold(shard: Shard, share: Sequence[Any]) -> Sequence[Any]:
        folded = await workers.hold_each(3, fold_shard, shard, params, source.numbering, *share)
        workers.let_go(share)
        return folded

    folded = await each("pairs", list(map(fold, shards, source.shares)), progress)
    pairs = [pairs for pairs, _, _ in folded]
    index = await workers.hold(build_index, source.numbering, *(counts for _, _, counts in folded))
    items, candidates = await workers.run(measure_index, index)
    everything = np.ones(items, np.bool_)
    whole = await _round(workers, pairs, everything, 0, progress)
    if whole.pairs == 0:
        raise no_interactions(as_of_us)
    alive, core = await _find_core(workers, pairs, everything, params, progress)
    if core.pairs == 0:
        raise _no_positives(whole, core, params)

    sampler = await workers.hold(build_sampler, index, params)
    living = await workers.put(alive)
    if core.pairs * (1 + params.negative_ratio) > FORECAST_ROWS:
        forecasts = [
            workers.run(forecast_shard, pairs, positives, living, index, sampler, params)
            for pairs, positives, _ in folded
        ]
        await admit(sum(await each("forecast", forecasts, progress)), 0)
    sampling = [
        workers.run(sample_shard, pairs, positives, living, index, sampler, params, sink, f"{number:04d}")
        for number, (pairs, positives, _) in enumerate(folded)
    ]
    sampled: list[SampledShard[W]] = await each("sample", sampling, progress)
    positives = sum(shard.positives for shard in sampled)
    if positives == 0:
        raise _no_positives(whole, core, params)
    return Dataset(
        parts=tuple(part for shard in sampled for part in shard.parts),
        source_pairs=whole.pairs,
        core_pairs=core.pairs,
        core_users=core.users,
        core_items=core.items,
        positives=positives,
        positives_outside_candidates=sum(shard.outside for shard in sampled),
        negatives=sum(shard.negatives for shard in sampled),
        negatives_short=sum(shard.short for shard in sampled),
        candidates=candidates,
    )


async def _find_core(
    workers: Workers, pairs: Sequence[Any], alive: np.ndarray, params: SamplingParams, progress: Progress
) -> tuple[np.ndarray, CoreRound]:
    """Rounds until no item falls; the living items and the last round."""
    while True:
        core = await _round(workers, pairs, alive, params.min_interactions_per_user, progress)
        left = survivors(alive, core, params.min_interactions_per_item)
        if np.array_equal(left, alive):
            return alive, core
        alive = left


async def _round(
    workers: Workers, pairs: Sequence[Any], alive: np.ndarray, min_per_user: int, progress: Progress
) -> CoreRound:
    living = await workers.put(alive)
    total = CoreRound(np.zeros(alive.size, np.int64))

    async def count(shard: Any) -> None:
        total.add(*await workers.run(core_round, shard, living, min_per_user))

    await each("core", [count(shard) for shard in pairs], progress)
    return total


def _no_positives(source: CoreRound, core: CoreRound, params: SamplingParams) -> NoPositivesError:
    types = ", ".join(params.positive_types)
    kept = f"keeps {core.pairs}, none of them of a positive type ({types})" if core.pairs else "keeps none"
    return NoPositivesError(
        f"No positives are left: of {source.pairs} (user, item) pairs the core with "
        f"min_interactions_per_user = {params.min_interactions_per_user} and "
        f"min_interactions_per_item = {params.min_interactions_per_item} {kept}. "
        f"Lower the two settings, {'name other types, ' if core.pairs else ''}or upload more.",
        {
            "pairs": str(source.pairs),
            "core_pairs": str(core.pairs),
            "min_interactions_per_user": str(params.min_interactions_per_user),
            "min_interactions_per_item": str(params.min_interactions_per_item),
        },
    )
