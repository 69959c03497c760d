"""The driver of a sampling run: the order of its stages, and which results stay with the workers.

The one place that knows the order. It runs on any `Workers`: the pool of Ray
actors, or a loop in one process.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

import numpy as np

from headrace_compute.errors import NoPositivesError
from headrace_compute.features.cut_run import Wanted, features_at_cuts
from headrace_compute.inputs.events import no_interactions
from headrace_compute.inputs.source import Source, read_source
from headrace_compute.inputs.workers import Admit, Progress, Workers, admit_all, each
from headrace_compute.model import DataFile, Shard
from headrace_compute.sink import Sink, W
from headrace_compute.training.core import CoreRound, core_round, survivors
from headrace_compute.training.feature_columns import (
    FEATURE_PARAMS,
    ask_items,
    chosen_of,
    find_items,
    instants,
)
from headrace_compute.training.fractions import find_cuts
from headrace_compute.training.items import build_index, measure_index
from headrace_compute.training.negatives import (
    SampledShard,
    SplitPlan,
    ask_shard,
    forecast_shard,
    sample_shard,
)
from headrace_compute.training.numbered import HeldShard, IdRun, IdTables, Numbered
from headrace_compute.training.pairs import first_positives, fold_shard
from headrace_compute.training.parameters import SNAPSHOT, SamplingParams
from headrace_compute.training.sampler import build_sampler

FORECAST_ROWS = 1 << 20
"""Rows that a training set may have without a forecast of its size: twenty megabytes or so."""


@dataclass(frozen=True)
class SplitRows:
    """What a run made of a split; the numbers are those of SplitResult, the name is None without a split.

    Attributes:
        positives_without_category: Those whose category would be drawn from, and is unknown.
    """

    name: str | None
    positives: int
    positives_outside_candidates: int
    negatives: int
    negatives_short: int
    positives_without_user: int
    positives_without_item: int
    positives_without_category: int


@dataclass(frozen=True)
class Dataset(Generic[W]):
    """What a sampling run made; the numbers are those of NegativesResult.

    Attributes:
        parts: Those of the first split, then those of the next.
        splits: The first is train; without a split it is the only one.
        cuts_us: Where the others begin, if time divides them.
        users, items: What became of the tables of ids, if there are any.
    """

    parts: tuple[W, ...]
    source_pairs: int
    core_pairs: int
    core_users: int
    core_items: int
    candidates: int
    splits: tuple[SplitRows, ...]
    cuts_us: tuple[int, ...]
    users: tuple[W, ...] = ()
    items: tuple[W, ...] = ()


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
    params = await _with_cuts(workers, source, shards, params, progress)
    names = (None,) if params.split is None else params.split.names
    folded = await _fold(workers, source, shards, params, len(names), progress)
    pairs = [shard.core for shard in folded]
    categories_from = catalog if params.same_category_share > 0.0 else None
    index = await workers.hold(
        build_index, source.numbering, categories_from, *(shard.counts for shard in folded)
    )
    item_count, candidates = await workers.run(measure_index, index)
    everything = np.ones(item_count, np.bool_)
    whole = await _round(workers, pairs, everything, 0, progress)
    if whole.pairs == 0:
        raise no_interactions(params.split.cuts_us[0] if params.split and params.split.cuts_us else as_of_us)
    alive, core = await _find_core(workers, pairs, everything, params, progress)
    if core.pairs == 0:
        raise _no_positives(whole, core, params)

    living = await workers.put(alive)
    drawing = _Drawing(folded, (living, index, await workers.hold(build_sampler, index, params)))
    when = instants(params, as_of_us)
    plans = [SplitPlan(number, name, params.of_split(number == 0), when) for number, name in enumerate(names)]
    joined = await _join(workers, source, catalog, shards, drawing, plans, params, progress)
    numbered: Numbered[W] | None = None
    if ids is not None:
        run = IdRun(workers, ids, source.numbering, living, params, progress)
        numbered = await run.number([HeldShard(shard.firsts, shard.views) for shard in folded])
    more = [
        (folded[place].histories, *features, *(numbered.of_shard(place) if numbered else (None, None)))
        for place, features in enumerate(joined)
    ]
    if core.pairs * (1 + params.negative_ratio) > FORECAST_ROWS:
        forecasts = [
            workers.run(forecast_shard, *drawing.of(place, plan), *columns)
            for place, columns in enumerate(more)
            for plan in plans
        ]
        await admit(sum(await each("forecast", forecasts, progress)), 0)

    async def sample(place: int) -> list[SampledShard[W]]:
        shard, sampled = folded[place], []
        for plan in plans:
            # The table has its parts in the order of their names.
            name = f"{plan.number}-{plan.name}-{place:04d}" if plan.name else f"{place:04d}"
            drawn = (*drawing.of(place, plan), *more[place])
            sampled.append(await workers.run(sample_shard, *drawn, sink, name))
        workers.let_go([held for view in shard.views for held in view])
        return sampled

    sampled = await each("sample", list(map(sample, range(len(folded)))), progress)
    of_splits = list(zip(*sampled, strict=True))
    splits = tuple(map(_added_up, names, of_splits))
    if splits[0].positives == 0:
        raise _no_positives(whole, core, params)
    users, items = await numbered.write() if numbered else ((), ())
    return Dataset(
        parts=tuple(part for split in of_splits for shard in split for part in shard.parts),
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


@dataclass(frozen=True)
class _Folded:
    """What `fold_shard` gave for a shard, held by the workers: the views are Pairs and Positives."""

    counts: Any
    histories: Any
    firsts: Any
    views: list[tuple[Any, Any]]

    @property
    def core(self) -> Any:
        """The Pairs that the core is made of: what the first split knows."""
        return self.views[0][0]


@dataclass(frozen=True)
class _Drawing:
    """What rows are drawn from.

    Attributes:
        of_all: The living items, the index and the sampler.
    """

    folded: list[_Folded]
    of_all: tuple[Any, Any, Any]

    def of(self, place: int, plan: SplitPlan) -> tuple[Any, ...]:
        """The first arguments of a stage that draws for one split of a shard."""
        shard = self.folded[place]
        return (*shard.views[plan.number], shard.core, *self.of_all, plan)


async def _fold(
    workers: Workers,
    source: Source,
    shards: Sequence[Shard],
    params: SamplingParams,
    splits: int,
    progress: Progress,
) -> list[_Folded]:
    async def fold(shard: Shard, share: Sequence[Any]) -> _Folded:
        how = (fold_shard, shard, params, source.numbering)
        counts, histories, firsts, *views = await workers.hold_each(3 + 2 * splits, *how, *share)
        if params.with_features is None:
            workers.let_go(share)
        return _Folded(counts, histories, firsts, list(zip(views[::2], views[1::2], strict=True)))

    return await each("pairs", list(map(fold, shards, source.shares)), progress)


async def _join(
    workers: Workers,
    source: Source,
    catalog: Any,
    shards: Sequence[Shard],
    drawing: _Drawing,
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


async def _with_cuts(
    workers: Workers, source: Source, shards: Sequence[Shard], params: SamplingParams, progress: Progress
) -> SamplingParams:
    """The parameters with cut times in the place of fractions."""
    if params.split is None or not params.split.fractions:
        return params
    finding = [
        workers.hold(first_positives, shard, params, source.numbering, *share)
        for shard, share in zip(shards, source.shares, strict=True)
    ]
    times = await each("cuts", finding, progress)
    cuts_us = await find_cuts(workers, times, params.split.fractions)
    workers.let_go(times)
    # Without any positive there is nothing to divide, as the run will say.
    split = replace(params.split, cuts_us=cuts_us, fractions=()) if cuts_us else None
    return replace(params, split=split)


def _added_up(name: str | None, shards: Sequence[SampledShard[W]]) -> SplitRows:
    return SplitRows(
        name,
        positives=sum(shard.positives for shard in shards),
        positives_outside_candidates=sum(shard.outside for shard in shards),
        negatives=sum(shard.negatives for shard in shards),
        negatives_short=sum(shard.short for shard in shards),
        positives_without_user=sum(shard.without_user for shard in shards),
        positives_without_item=sum(shard.without_item for shard in shards),
        positives_without_category=sum(shard.without_category for shard in shards),
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
    seen = f"{source.pairs} (user, item) pairs{' that train sees' if params.split else ''}"
    return NoPositivesError(
        f"No positives are left: of {seen} the core with "
        f"min_interactions_per_user = {params.min_interactions_per_user} and "
        f"min_interactions_per_item = {params.min_interactions_per_item} {kept}. "
        f"Lower the two settings, {'name other types, ' if core.pairs else ''}"
        f"{'choose later cuts, ' if params.split and params.split.cuts_us else ''}or upload more.",
        {
            "pairs": str(source.pairs),
            "core_pairs": str(core.pairs),
            "min_interactions_per_user": str(params.min_interactions_per_user),
            "min_interactions_per_item": str(params.min_interactions_per_item),
        },
    )
