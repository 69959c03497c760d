"""The events of a shard, folded once into all that a run makes its training data of."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from headrace_compute.features.snapshot import aggregate
from headrace_compute.inputs.events import Events, gather
from headrace_compute.inputs.exchange import Slice
from headrace_compute.inputs.numbering import Numbering
from headrace_compute.model import Shard, StoreConfig
from headrace_compute.training.feature_columns import FEATURE_PARAMS, Found, by_number, chosen_of
from headrace_compute.training.firsts import FirstEvents, first_events
from headrace_compute.training.history import Histories, histories_of
from headrace_compute.training.items import TimedCounts, count_items
from headrace_compute.training.pairs import PairRows, Pairs, Positives, TimedPairs, among
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.split import first_seen


def fold_shard(
    config: StoreConfig,
    shard: Shard,
    params: SamplingParams,
    snapshot_us: int | None,
    numbering: Numbering,
    *slices: Slice,
) -> Iterator[TimedCounts | Histories | FirstEvents | Found | pa.Table | Pairs | Positives | None]:
    """Folds the events of a shard.

    Args:
        config: Unused.
        shard: Which one, for its name.
        params: Which types make a positive, whether exposures are drawn from, and the split, its cuts known.
        snapshot_us: The instant of a snapshot; None without one.
        numbering: Of all items.
        slices: Its rows, of each batch.

    Yields:
        The TimedCounts of what the first split sees, then the Histories (None without such a column), the
        FirstEvents (None without indices), and of a snapshot (None without one) the features of the users and
        what those of the items are made of: `aggregate`; then for each split the Pairs that it knows and its
        Positives. Without a split there is one, which sees all.
    """
    events = gather(numbering, slices)
    rows = PairRows(events, params)
    seen = rows.views(params)
    yield count_items(events, seen[0])
    yield histories_of(events, params, first_seen(params.split, seen)) if params.history else None
    yield first_events(events) if params.with_indices else None
    yield from (None, None) if snapshot_us is None else _snapshot(events, params, snapshot_us)
    before: TimedPairs | None = None
    for which in seen:
        view = rows.fold(which)
        yield view.known
        own = view.positives if before is None else view.positives.where(~among(view.positives, before))
        yield Positives(events.users, events.user_buckets, own, view.exposed)
        before = view.positives


def first_positives(
    config: StoreConfig, shard: Shard, params: SamplingParams, numbering: Numbering, *slices: Slice
) -> np.ndarray:
    """When the pairs of a shard first are positives: int64, ascending; `fold_shard`'s arguments."""
    return np.sort(PairRows(gather(numbering, slices), params).fold(None).positives.first_us)


def _snapshot(events: Events, params: SamplingParams, snapshot_us: int) -> tuple[Found, pa.Table]:
    of_users, of_items = chosen_of(params, "user"), chosen_of(params, "item")
    users, items = aggregate(events.before(snapshot_us), snapshot_us, FEATURE_PARAMS, of_users, of_items)
    return by_number(users, of_users), items
