"""Training data: positives of the core, and for each some items its user does not know.

A user's rows depend only on the user's own pairs, the seed, the parameters, the
candidates with their weights, and the core, so every shard plan gives the same rows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute import cancellation
from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.kernels.core import choose_positives
from headrace_compute.kernels.exposures import count_exposures, draw_exposures
from headrace_compute.kernels.hashing import xxh64_strings
from headrace_compute.kernels.sampling import (
    alias_table,
    draw_counts,
    draw_negatives,
    source_coins,
    stream_keys,
    weight_tree,
)
from headrace_compute.model import ROW_GROUP_ROWS, Part, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import encoded_bytes, write_part
from headrace_compute.training.core import ItemIndex, Pairs, Positives
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.strategies import EXPOSED, components

PART_ROWS = 1 << 20
"""About as many rows as a part may have: bounds a worker's memory whatever the ratio."""

PIECE_ROWS = 1 << 17
"""About as many are drawn and laid out between two looks at whether the stage is cancelled."""

TRAINING_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("label", pa.float64()),
        ("group_id", pa.int64()),
        ("negative_source", pa.string()),
        ("sampling_prob", pa.float64()),
        ("timestamp", TIMESTAMP),
        ("split", pa.string()),
        ("bucket", pa.int16()),
    ]
)


@dataclass(frozen=True)
class CandidateSampler:
    """The candidates with their weights, in the tables that the sampling kernel draws from.

    Attributes:
        weights: float64, positive, one per candidate in the order of item_id.
        total: Their sum, rounded once.
        thresholds, aliases: Their alias table.
        tree: Their sums as a tree.
        sources: What draws may name, by number.
        shares: float64 (sources - 1, candidates): how likely a draw of the candidate names one of the first,
            of the first two, and so on.
    """

    weights: np.ndarray
    total: float
    thresholds: np.ndarray
    aliases: np.ndarray
    tree: np.ndarray
    sources: tuple[str, ...]
    shares: np.ndarray


@dataclass(frozen=True)
class SampledShard:
    """What one shard wrote.

    Attributes:
        parts: In the order of their rows.
        outside: Positives whose item is not a candidate.
        short: Negatives missing because too few candidates were left.
    """

    parts: tuple[Part, ...]
    positives: int
    outside: int
    negatives: int
    short: int


@dataclass(frozen=True)
class _Groups:
    """Some positives of a shard, in output order, and how many negatives each gets.

    Attributes:
        exposures: int64, how many exposures each may draw from.
        exposed: int64, how many of these it draws, before all others.
        weighted: int64, how many it draws by the candidates' weights.
    """

    users: np.ndarray
    items: np.ndarray
    times_us: np.ndarray
    exposures: np.ndarray
    exposed: np.ndarray
    weighted: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """How many negatives each gets."""
        counts: np.ndarray = self.exposed + self.weighted
        return counts

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, some: slice) -> "_Groups":
        return _Groups(*(getattr(self, field.name)[some] for field in fields(self)))


@dataclass(frozen=True)
class _Known:
    """What the users of a shard know, as candidates.

    Attributes:
        candidates: int32, the candidate of each pair, -1 = none.
        exposures: Of those that may be drawn: where each user's begin, the candidate of each, and when it was
            first viewed; see `kernels/exposures.py`.
    """

    candidates: np.ndarray
    exposures: tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Drawn:
    """Negatives in output order.

    Attributes:
        candidates: int32, their numbers.
        probs: float64, their sampling_prob.
        sources: int8, the number of the source that each names; those of the sampler, then exposures.
    """

    candidates: np.ndarray
    probs: np.ndarray
    sources: np.ndarray


def build_sampler(config: StoreConfig, index: ItemIndex, params: SamplingParams) -> CandidateSampler:
    """The sampler over the candidates of the index."""
    parts = components(params, index.events[index.candidates])
    sums = list(accumulate((part.weights for part in parts), np.add))
    weights = sums[-1]
    return CandidateSampler(
        weights,
        math.fsum(weights),
        *alias_table(weights),
        tree=weight_tree(weights),
        sources=tuple(part.source for part in parts),
        shares=np.array([each / weights for each in sums[:-1]]).reshape(len(parts) - 1, weights.size),
    )


def sample_shard(
    config: StoreConfig,
    pairs: Pairs,
    positives: Positives,
    alive: np.ndarray,
    index: ItemIndex,
    sampler: CandidateSampler,
    params: SamplingParams,
    part_prefix: str,
) -> SampledShard:
    """Writes the training data of one shard.

    Args:
        config: Where the parts go.
        pairs, positives: The shard.
        alive: bool by item number: the items of the core.
        index: All items.
        sampler: The candidates.
        params: What to make.
        part_prefix: Keys of the parts are this, a number of five digits and `.parquet`.
            Equal inputs write equal parts, so a repeated call may use the same prefix.
    """
    known, groups, outside = _choose(pairs, positives, alive, index, params)
    store = open_store(config)
    parts = []
    for number, some in enumerate(_cut(groups, PART_ROWS, params)):
        pieces = []
        for piece in _cut(some, PIECE_ROWS, params):
            cancellation.check()
            pieces.append(_sample(pairs, positives, known, index, sampler, params, piece))
        key = f"{part_prefix}{number:05d}.parquet"
        parts.append(write_part(store, key, pa.concat_tables(pieces), stats=("timestamp", "bucket")))
    negatives = int(groups.counts.sum())
    return SampledShard(
        parts=tuple(parts),
        positives=len(groups),
        outside=outside,
        negatives=negatives,
        short=params.negative_ratio * len(groups) - negatives,
    )


def forecast_shard(
    config: StoreConfig,
    pairs: Pairs,
    positives: Positives,
    alive: np.ndarray,
    index: ItemIndex,
    sampler: CandidateSampler,
    params: SamplingParams,
) -> int:
    """About how many bytes `sample_shard` would write: its first row group's, for as many rows as it has."""
    known, groups, _ = _choose(pairs, positives, alive, index, params)
    for some in _cut(groups, ROW_GROUP_ROWS, params):
        rows = len(groups) + int(groups.counts.sum())
        table = _sample(pairs, positives, known, index, sampler, params, some)
        return encoded_bytes(table) * rows // len(table)
    return 0


def _choose(
    pairs: Pairs, positives: Positives, alive: np.ndarray, index: ItemIndex, params: SamplingParams
) -> tuple[_Known, _Groups, int]:
    """What users know; the positives; how many of them are no candidates."""
    candidates = _candidate_numbers(index)[pairs.items]
    first_exposures = np.searchsorted(positives.exposed, pairs.starts).astype(np.int64)
    known = _Known(candidates, (first_exposures, candidates[positives.exposed], positives.exposed_us))
    chosen, users = choose_positives(
        pairs.starts,
        pairs.items,
        positives.pairs,
        positives.first_us,
        alive,
        params.min_interactions_per_user,
        params.max_interactions_per_user,
    )
    places, times_us, ratio = positives.pairs[chosen], positives.first_us[chosen], params.negative_ratio
    exposures = count_exposures(users, times_us, *known.exposures)
    exposed = np.minimum(exposures, ratio)
    free = draw_counts(pairs.starts, candidates, len(index.candidates), ratio, users)
    weighted = np.minimum(ratio - exposed, free)
    groups = _Groups(users, pairs.items[places], times_us, exposures, exposed, weighted)
    return known, groups, int(np.count_nonzero(candidates[places] < 0))


def _cut(groups: _Groups, rows: int, params: SamplingParams) -> Iterator[_Groups]:
    """Positives that follow each other, with about so many rows at a time."""
    step = max(1, rows // (1 + params.negative_ratio))
    for begin in range(0, len(groups), step):
        yield groups[begin : begin + step]


def _candidate_numbers(index: ItemIndex) -> np.ndarray:
    """The place among the candidates of each item number: int32, -1 = no candidate."""
    numbers = np.full(len(index.item_ids), -1, np.int32)
    numbers[index.candidates] = np.arange(len(index.candidates), dtype=np.int32)
    return numbers


def _sample(
    pairs: Pairs,
    positives: Positives,
    known: _Known,
    index: ItemIndex,
    sampler: CandidateSampler,
    params: SamplingParams,
    groups: _Groups,
) -> pa.Table:
    """Draws for some positives and lays out their rows: each positive, then its negatives."""
    hashes = _hash_groups(
        positives.users.take(pa.array(groups.users)), index.item_ids.take(pa.array(groups.items))
    )
    drawn = _draw(pairs, known, sampler, stream_keys(params.seed, hashes), groups)
    rows = len(groups) + len(drawn.candidates)
    group = np.repeat(np.arange(len(groups), dtype=np.int32), groups.counts + 1)
    positive = np.zeros(rows, np.bool_)
    positive[np.cumsum(groups.counts + 1) - groups.counts - 1] = True
    items = np.empty(rows, np.int32)
    items[positive] = groups.items
    items[~positive] = index.candidates[drawn.candidates]
    prob = np.zeros(rows)
    prob[~positive] = drawn.probs
    users = groups.users[group]
    named = np.zeros(rows, np.int8)
    named[~positive] = drawn.sources
    names = pa.array((*sampler.sources, EXPOSED))
    source = pa.DictionaryArray.from_arrays(pa.array(named, mask=positive), names)
    return pa.table(
        [
            positives.users.take(pa.array(users)),
            index.item_ids.take(pa.array(items)),
            positive.astype(np.float64),
            hashes.view(np.int64)[group],
            source.cast(pa.string()),
            pa.array(prob, mask=positive),
            pa.array(groups.times_us[group]).cast(TIMESTAMP),
            pa.nulls(rows, pa.string()),
            positives.buckets[users],
        ],
        schema=TRAINING_SCHEMA,
    )


def _draw(
    pairs: Pairs, known: _Known, sampler: CandidateSampler, keys: np.ndarray, groups: _Groups
) -> _Drawn:
    """Draws for some positives: of each first its exposures, if it has any, then by weight."""
    weighted, probs = draw_negatives(
        keys,
        groups.users,
        groups.weighted,
        pairs.starts,
        known.candidates,
        sampler.thresholds,
        sampler.aliases,
        sampler.weights,
        sampler.total,
        sampler.tree,
    )
    sources = _sources(sampler, keys, groups.weighted, weighted)
    if not groups.exposed.any():
        return _Drawn(weighted, probs, sources)
    exposed = draw_exposures(keys, groups.users, groups.times_us, *known.exposures, groups.exposed)
    # How many of its group come before each row.
    counts = groups.counts
    before = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    comes_first = before < np.repeat(groups.exposed, counts)

    def merged(first: np.ndarray, then: np.ndarray) -> np.ndarray:
        rows = np.empty(len(comes_first), then.dtype)
        rows[comes_first], rows[~comes_first] = first, then
        return rows

    alike = np.repeat(1.0 / np.maximum(1, groups.exposures), groups.exposed)
    named = np.full(len(exposed), len(sampler.sources), np.int8)
    return _Drawn(merged(exposed, weighted), merged(alike, probs), merged(named, sources))


def _sources(
    sampler: CandidateSampler, keys: np.ndarray, counts: np.ndarray, drawn: np.ndarray
) -> np.ndarray:
    """The number of the source that each draw names."""
    if len(sampler.sources) == 1:
        return np.zeros(drawn.size, np.int8)
    coins = source_coins(keys, counts)
    below = coins >= sampler.shares[:, drawn]
    numbers: np.ndarray = np.add.reduce(below, axis=0, dtype=np.int8)
    return numbers


def _hash_groups(users: pa.Array, items: pa.Array) -> np.ndarray:
    """xxh64(user_id, 0x00, item_id), uint64: no id contains 0x00, so no two groups read the same."""
    return xxh64_strings(pc.binary_join_element_wise(users, items, "\0"))
