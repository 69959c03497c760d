"""The rows of training data: each positive, then its negatives."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.kernels.hashing import xxh64_strings
from headrace_compute.kernels.sampling import stream_keys
from headrace_compute.training.groups import Groups, Known
from headrace_compute.training.items import ItemIndex
from headrace_compute.training.pairs import Positives
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.sampler import CandidateSampler, draw
from headrace_compute.training.strategies import EXPOSED

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


def training_rows(
    positives: Positives,
    known: Known,
    index: ItemIndex,
    sampler: CandidateSampler,
    params: SamplingParams,
    split: str | None,
    groups: Groups,
) -> pa.Table:
    """Draws for some positives of a split and lays out their rows: each positive, then its negatives."""
    hashes = _hash_groups(
        positives.users.take(pa.array(groups.users)), index.item_ids.take(pa.array(groups.items))
    )
    drawn = draw(known, sampler, stream_keys(params.seed, hashes), groups)
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
            pa.repeat(pa.scalar(split, pa.string()), rows),
            positives.buckets[users],
        ],
        schema=TRAINING_SCHEMA,
    )


def _hash_groups(users: pa.Array, items: pa.Array) -> np.ndarray:
    """xxh64(user_id, 0x00, item_id), uint64: no id contains 0x00, so no two groups read the same."""
    return xxh64_strings(pc.binary_join_element_wise(users, items, "\0"))
