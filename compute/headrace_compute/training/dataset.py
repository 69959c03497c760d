"""What a sampling run made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from headrace_compute.sink import W
from headrace_compute.training.negatives import SampledShard


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


def rows_of_split(name: str | None, shards: Sequence[SampledShard[W]]) -> SplitRows:
    """What its shards made of a split."""
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
