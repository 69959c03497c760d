"""The users and items of a training set, each with its index: stages, and the tables made of them."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from headrace_compute import cancellation
from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.inputs.numbering import Numbering
from headrace_compute.kernels.core import NEVER_US, core_members
from headrace_compute.model import StoreConfig
from headrace_compute.sink import Sink, W
from headrace_compute.training.firsts import FirstEvents
from headrace_compute.training.groups import keep
from headrace_compute.training.items import ItemCounts
from headrace_compute.training.pairs import Pairs, Positives
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.vocabulary import CLAIMS_SCHEMA, Entity, indices_of

PART_ROWS = 1_000_000
"""Rows of a part at most."""


def ids_schema(entity: Entity) -> pa.Schema:
    """The columns of the table of users, or of items, that comes with a training set."""
    return pa.schema(
        [
            (f"{entity}_id", pa.string()),
            (f"{entity}_index", pa.int64()),
            ("count", pa.int64()),
            ("first_seen", TIMESTAMP),
        ]
    )


def claim_users(
    config: StoreConfig,
    firsts: FirstEvents,
    core: Pairs,
    alive: np.ndarray,
    params: SamplingParams,
    *positives: Positives,
) -> Iterator[np.ndarray | pa.Table]:
    """The users of a shard that have rows: those of the core with a positive whose item is in it.

    Args:
        config: Unused.
        firsts: First events of the shard.
        core, alive, params: As of `negatives.ShardOfSplit`.
        positives: Those of each split.

    Yields:
        Which of the shard's users they are, int64; then their CLAIMS_SCHEMA.
    """
    has_any = np.zeros(core.starts.size - 1, np.bool_)
    for split in positives:
        owners = np.repeat(np.arange(has_any.size), np.diff(split.pairs.starts))
        has_any[owners[alive[split.pairs.items]]] = True
    members = core_members(core.starts, core.items, alive, params.min_interactions_per_user)
    places = np.flatnonzero(members & has_any)
    yield places
    yield pa.table([positives[0].users.take(pa.array(places)), firsts.users_us[places]], schema=CLAIMS_SCHEMA)


def claim_items(config: StoreConfig, numbering: Numbering, *firsts: FirstEvents) -> pa.Table:
    """All items of the source and the catalog, CLAIMS_SCHEMA, by number."""
    first_us = np.full(len(numbering), NEVER_US)
    for shard in firsts:
        first_us[shard.items] = np.minimum(first_us[shard.items], shard.items_us)
    return pa.table([numbering.item_ids, first_us], schema=CLAIMS_SCHEMA)


def index_users(config: StoreConfig, vocabulary: pa.Table, positives: Positives) -> np.ndarray:
    """The index of each user of a shard, int64; of those without rows it may be PADDING."""
    return indices_of(vocabulary, positives.users, positives.buckets)


def index_items(config: StoreConfig, vocabulary: pa.Table, numbering: Numbering) -> np.ndarray:
    """The index of each item by number, int64."""
    return indices_of(vocabulary, numbering.item_ids)


def count_positives(
    config: StoreConfig, positives: Positives, core: Pairs, alive: np.ndarray, params: SamplingParams
) -> Iterator[np.ndarray | ItemCounts]:
    """How many rows with label 1 `sample_shard` makes of a shard, by user (int64) and by item."""
    members = core_members(core.starts, core.items, alive, params.min_interactions_per_user)
    users, items, _ = keep(positives.pairs, members, alive, params)
    yield np.bincount(users, minlength=len(positives.users))
    counts = np.bincount(items)
    numbers = np.flatnonzero(counts)
    yield ItemCounts(numbers.astype(np.int32), counts[numbers])


def list_users(
    config: StoreConfig, places: np.ndarray, claims: pa.Table, indices: np.ndarray, counts: np.ndarray
) -> pa.Table:
    """The users of a shard that have rows, as `ids_schema` has them.

    Args:
        config: Unused.
        places, claims: As `claim_users` gives them.
        indices: By user of the shard.
        counts: The same.
    """
    return _rows("user", claims, indices[places], counts[places])


def write_users(config: StoreConfig, sink: Sink[W], *shards: pa.Table) -> tuple[W, ...]:
    """Writes the table of users; returns what became of it."""
    return _write(config, sink, pa.concat_tables(shards))


def write_items(
    config: StoreConfig, sink: Sink[W], claims: pa.Table, indices: np.ndarray, *counts: ItemCounts
) -> tuple[W, ...]:
    """Writes the table of items; returns what became of it.

    Args:
        claims, indices: Of all items, by number.
        counts: Of each shard.
    """
    totals = np.zeros(claims.num_rows, np.int64)
    for shard in counts:
        totals[shard.numbers] += shard.events
    return _write(config, sink, _rows("item", claims, indices, totals))


def _rows(entity: Entity, claims: pa.Table, indices: np.ndarray, counts: np.ndarray) -> pa.Table:
    first_us = claims["first_us"].to_numpy()
    first_seen = pa.array(first_us, mask=first_us == NEVER_US).cast(TIMESTAMP)
    return pa.table([claims["id"], indices, counts, first_seen], schema=ids_schema(entity))


def _write(config: StoreConfig, sink: Sink[W], rows: pa.Table) -> tuple[W, ...]:
    """Writes a table in the order of its second column, the index."""
    index, output = rows.column_names[1], sink.open(config)
    rows = rows.sort_by(index)
    for number, begin in enumerate(range(0, rows.num_rows, PART_ROWS)):
        cancellation.check()
        output.write(f"{number:04d}", rows.slice(begin, PART_ROWS), stats=(index,))
    return output.close()
