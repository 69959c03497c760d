"""The shards of a run, folded and held by its workers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from headrace_compute.inputs.source import Source
from headrace_compute.inputs.workers import Progress, Workers, each
from headrace_compute.model import Shard
from headrace_compute.training.fold import first_positives, fold_shard
from headrace_compute.training.fractions import find_cuts
from headrace_compute.training.negatives import SplitPlan
from headrace_compute.training.parameters import POINT_IN_TIME, SamplingParams


@dataclass(frozen=True)
class HeldShard:
    """What `fold_shard` gave for a shard.

    Attributes:
        counts: ItemCounts.
        histories: Histories, None without such a column.
        firsts: FirstEvents.
        users: Features of its users in a snapshot, Found; None without one.
        items: What those of its items are made of.
        views: Of each split Pairs and Positives.
    """

    counts: Any
    histories: Any
    firsts: Any
    users: Any
    items: Any
    views: Sequence[tuple[Any, Any]]

    @property
    def core(self) -> Any:
        """The Pairs that the core is made of: what the first split knows."""
        return self.views[0][0]


@dataclass(frozen=True)
class Drawing:
    """What rows are drawn from.

    Attributes:
        shards: All of them.
        of_all: The living items, the index and the sampler.
    """

    shards: Sequence[HeldShard]
    of_all: tuple[Any, Any, Any]

    def of(self, place: int, plan: SplitPlan) -> tuple[Any, ...]:
        """The first arguments of a stage that draws for one split of a shard."""
        shard = self.shards[place]
        return (*shard.views[plan.number], shard.core, *self.of_all, plan)


async def with_cuts(
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
    # Without any positive there is nothing to make, as the run will say.
    if not cuts_us:
        return replace(params, split=None, with_features=None)
    return replace(params, split=replace(params.split, cuts_us=cuts_us, fractions=()))


async def fold(
    workers: Workers,
    source: Source,
    shards: Sequence[Shard],
    params: SamplingParams,
    snapshot_us: int | None,
    progress: Progress,
) -> list[HeldShard]:
    """Folds each shard of a source; its shares are let go unless more is to be made of them."""
    splits = 1 if params.split is None else len(params.split.names)

    async def fold_one(shard: Shard, share: Sequence[Any]) -> HeldShard:
        how = (fold_shard, shard, params, snapshot_us, source.numbering)
        folded = await workers.hold_each(5 + 2 * splits, *how, *share)
        if params.with_features != POINT_IN_TIME:
            workers.let_go(share)
        counts, histories, firsts, users, items, *views = folded
        return HeldShard(
            counts, histories, firsts, users, items, list(zip(views[::2], views[1::2], strict=True))
        )

    return await each("pairs", list(map(fold_one, shards, source.shares)), progress)
