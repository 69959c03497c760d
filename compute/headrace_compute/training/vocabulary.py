"""Vocabularies: which integer each id of a tenant has, for good.

A vocabulary is a table that only grows: ids new to it get the next integers. So an id keeps its integer in
whatever training set it occurs, and what a model has learnt of it keeps its place.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.columns import BUCKET
from headrace_compute.kernels.hashing import bucket_of, xxh64_strings
from headrace_compute.model import DataFile, Part, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import read_parts, write_part

Entity = Literal["user", "item"]

PADDING = 0
"""The index that no id has."""

CLAIMS_SCHEMA = pa.schema([("id", pa.string()), ("first_us", pa.int64())])
"""Ids that must have an index, each once: when the first event of each was, NEVER_US if it has none."""


def vocabulary_schema(entity: Entity) -> pa.Schema:
    """The columns of a vocabulary."""
    return pa.schema([(f"{entity}_id", pa.string()), (f"{entity}_index", pa.int64()), (BUCKET, pa.int16())])


def write_new_ids(
    config: StoreConfig, entity: Entity, files: Sequence[DataFile], key: str, *claims: pa.Table
) -> Part | None:
    """Numbers the ids that a vocabulary lacks, from its end, in the order of (first event, id).

    Args:
        files: Those of the vocabulary.
        key: Of the part that the new ones go to.
        claims: CLAIMS_SCHEMA; no id is in two of them.

    Returns:
        The part; None if it lacks none.
    """
    store, schema = open_store(config), vocabulary_schema(entity)
    known = read_parts(store, files, schema.names[:1])[0]
    claimed = pa.concat_tables(claims)
    new = claimed.filter(
        pc.invert(pc.is_in(claimed["id"], value_set=known.cast(pa.string()).combine_chunks()))
    )
    if not new.num_rows:
        return None
    ids = new.sort_by([("first_us", "ascending"), ("id", "ascending")])["id"].combine_chunks()
    indices = np.arange(len(known), len(known) + len(ids)) + PADDING + 1
    return write_part(store, key, pa.table([ids, indices, bucket_of(xxh64_strings(ids))], schema=schema))


def read_vocabulary(config: StoreConfig, entity: Entity, files: Sequence[DataFile]) -> pa.Table:
    """All ids of a vocabulary, in the order of their buckets: a shard of users is a slice of it."""
    columns = read_parts(open_store(config), files, vocabulary_schema(entity).names)
    return columns.cast(vocabulary_schema(entity)).sort_by(BUCKET).combine_chunks()


def indices_of(vocabulary: pa.Table, ids: pa.Array, buckets: np.ndarray | None = None) -> np.ndarray:
    """The index of each id, int64; PADDING where the vocabulary lacks it.

    Args:
        buckets: Those of the ids, ascending, where they are some of a shard; None: of any.
    """
    if buckets is not None and buckets.size:
        of_all = vocabulary[BUCKET].to_numpy()
        first, last = np.searchsorted(of_all, buckets[0]), np.searchsorted(of_all, buckets[-1], side="right")
        vocabulary = vocabulary.slice(first, last - first)
    places = pc.index_in(ids, value_set=vocabulary[0].combine_chunks())
    found = vocabulary[1].combine_chunks().take(places)
    indices: np.ndarray = pc.fill_null(found, PADDING).to_numpy(zero_copy_only=False)
    return indices
