"""The rounds in which a run finds the core."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace_compute.errors import NoInteractionsError, NoPositivesError
from headrace_compute.inputs.events import no_interactions
from headrace_compute.inputs.workers import Progress, Workers, each
from headrace_compute.report import iso_time
from headrace_compute.training.core import CoreRound, core_round, survivors
from headrace_compute.training.parameters import SamplingParams


async def find_core(
    workers: Workers, pairs: Sequence[Any], alive: np.ndarray, params: SamplingParams, progress: Progress
) -> tuple[np.ndarray, CoreRound]:
    """Rounds until no item falls; the living items and the last round."""
    while True:
        core = await count_round(workers, pairs, alive, params.min_interactions_per_user, progress)
        left = survivors(alive, core, params.min_interactions_per_item)
        if np.array_equal(left, alive):
            return alive, core
        alive = left


async def count_round(
    workers: Workers, pairs: Sequence[Any], alive: np.ndarray, min_per_user: int, progress: Progress
) -> CoreRound:
    """One round over all shards; with `min_per_user` 0 it counts what there is."""
    living = await workers.put(alive)
    total = CoreRound(np.zeros(alive.size, np.int64))

    async def count(shard: Any) -> None:
        total.add(*await workers.run(core_round, shard, living, min_per_user))

    await each("core", [count(shard) for shard in pairs], progress)
    return total


def nothing_seen(params: SamplingParams, as_of_us: int | None) -> NoInteractionsError:
    """The error of a run whose train has no events to see."""
    if params.split is None:
        return no_interactions(as_of_us)
    if not params.split.cuts_us:
        return NoInteractionsError(
            "Train sees no interactions: each pair is one of its user's last two positives and is held out. "
            "Upload more, or split by time.",
            {},
        )
    cut = iso_time(params.split.cuts_us[0])
    return NoInteractionsError(
        f"Train sees no interactions: none is before the first cut, {cut}. Choose a later cut, or a larger "
        "fraction.",
        {"cut": cut},
    )


def no_positives(source: CoreRound, core: CoreRound, params: SamplingParams) -> NoPositivesError:
    """The error of a run whose core has none."""
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
