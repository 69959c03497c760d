"""The rows of training data: each positive, then its negatives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.kernels.hashing import xxh64_pairs
from headrace_compute.kernels.sampling import stream_keys
from headrace_compute.training.draws import Drawn, draw
from headrace_compute.training.groups import Groups, Known
from headrace_compute.training.items import ItemIndex
from headrace_compute.training.pairs import Positives
from headrace_compute.training.sampler import CandidateSampler
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
"""The columns that every dataset has; those that a request adds follow them."""


@dataclass(frozen=True)
class Rows:
    """Rows of some groups, by number.

    Attributes:
        groups: Whose rows they are.
        hashes: uint64, of each group xxh64(user_id, 0x00, item_id of the positive).
        group: int32, the group of each row.
        items: int32, the item of each row.
        is_positive: bool, one per row.
        drawn: What was drawn, one for each other row.
    """

    groups: Groups
    hashes: np.ndarray
    group: np.ndarray
    items: np.ndarray
    is_positive: np.ndarray
    drawn: Drawn

    def __len__(self) -> int:
        return len(self.group)

    @property
    def users(self) -> np.ndarray:
        """The user of each row."""
        users: np.ndarray = self.groups.users[self.group]
        return users


class Columns(Protocol):
    """Columns that a request adds."""

    def of(self, rows: Rows) -> Sequence[pa.Array]:
        """Their values, in the order of their fields."""


def draw_rows(
    positives: Positives, known: Known, index: ItemIndex, sampler: CandidateSampler, seed: int, groups: Groups
) -> Rows:
    """Draws for some positives of a split."""
    # No id contains 0x00, so no two groups read the same.
    hashes = xxh64_pairs(positives.users, groups.users, index.item_ids, groups.items)
    drawn = draw(known, sampler, stream_keys(seed, hashes), groups)
    rows = len(groups) + len(drawn.candidates)
    is_positive = np.zeros(rows, np.bool_)
    is_positive[np.cumsum(groups.counts + 1) - groups.counts - 1] = True
    items = np.empty(rows, np.int32)
    items[is_positive] = groups.items
    items[~is_positive] = sampler.items[drawn.candidates]
    group = np.repeat(np.arange(len(groups), dtype=np.int32), groups.counts + 1)
    return Rows(groups, hashes, group, items, is_positive, drawn)


def training_table(
    rows: Rows,
    positives: Positives,
    item_ids: pa.Array,
    sources: Sequence[str],
    split: str | None,
    more: Sequence[Columns],
    schema: pa.Schema,
) -> pa.Table:
    """Lays out rows.

    Args:
        rows: Which ones.
        positives: Who the users are.
        item_ids: item_id by number.
        sources: The sampler's.
        split: Its name; None if there is one for all.
        more: What the columns behind TRAINING_SCHEMA's are from.
        schema: All columns.
    """
    is_positive, users = rows.is_positive, rows.users
    prob = np.zeros(len(rows))
    prob[~is_positive] = rows.drawn.probs
    return pa.table(
        [
            positives.users.take(pa.array(users)),
            item_ids.take(pa.array(rows.items)),
            is_positive.astype(np.float64),
            rows.hashes.view(np.int64)[rows.group],
            _sources(rows, sources),
            pa.array(prob, mask=is_positive),
            pa.array(rows.groups.times_us[rows.group]).cast(TIMESTAMP),
            _repeated(split, len(rows)),
            positives.buckets[users],
            *(column for columns in more for column in columns.of(rows)),
        ],
        names=schema.names,
    )


def _sources(rows: Rows, names: Sequence[str]) -> pa.DictionaryArray:
    """Where each negative is from, null for positives. One name alone is written as the dictionary it is."""
    numbers = rows.drawn.sources
    occurs = np.bincount(numbers, minlength=len(names) + 1) > 0
    places = np.zeros(len(rows), np.int8)
    places[~rows.is_positive] = (np.cumsum(occurs, dtype=np.int8) - np.int8(1))[numbers]
    used = [name for name, is_used in zip((*names, EXPOSED), occurs, strict=True) if is_used]
    return pa.DictionaryArray.from_arrays(
        pa.array(places, mask=rows.is_positive), pa.array(used or names[:1], pa.string())
    )


def _repeated(text: str | None, rows: int) -> pa.Array:
    """A text in every row."""
    if text is None:
        return pa.nulls(rows, pa.string())
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), pa.array([text]))
