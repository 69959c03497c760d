"""Features in the rows of training data: what is asked for, and the columns that are made of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.columns import BUCKET
from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.features.feature import GRAINS, Feature, Grain
from headrace_compute.features.parameters import DAY_US, FeatureParams
from headrace_compute.features.registry import CUT, features_of
from headrace_compute.model import StoreConfig
from headrace_compute.training.items import ItemIndex
from headrace_compute.training.parameters import POINT_IN_TIME, SNAPSHOT, SamplingParams
from headrace_compute.training.rows import Rows

DAY_BITS = 22
"""Bits that hold the days of ten thousand years."""

FIRST_DAY = -719_162
"""The first day of the year 1, from 1970 on."""

NO_KEYS = np.empty(0, np.int64)

FEATURE_PARAMS = FeatureParams()
"""Windows and so on have their defaults."""


def columns_of(kind: str | None) -> dict[str, tuple[Grain, Feature]]:
    """All columns that features may have in training data, by their names.

    Args:
        kind: SNAPSHOT or POINT_IN_TIME. A snapshot has no lists of items, which would name the positive.
    """
    return {
        f"{grain}_{feature.name}": (grain, feature)
        for grain in GRAINS
        for feature in features_of(grain, FEATURE_PARAMS)
        if kind == POINT_IN_TIME or not feature.names_items
    }


def chosen(params: SamplingParams) -> dict[str, tuple[Grain, Feature]]:
    """The columns that a run adds, in their order."""
    if params.with_features is None:
        return {}
    columns = columns_of(params.with_features)
    values = [name for name, (_, feature) in columns.items() if not pa.types.is_list(feature.type)]
    return {name: columns[name] for name in params.feature_columns or values}


def chosen_of(params: SamplingParams, grain: Grain) -> tuple[Feature, ...]:
    """The features of one grain among them."""
    return tuple(feature for found, feature in chosen(params).values() if found == grain)


@dataclass(frozen=True)
class Instants:
    """Before which instants the features of rows are.

    Attributes:
        snapshot_us: The same for all; None: 00:00 UTC of the positive's day.
    """

    snapshot_us: int | None

    def of(self, rows: Rows) -> np.ndarray:
        """That of each row: microseconds since the epoch, int64."""
        if self.snapshot_us is not None:
            return np.full(len(rows), self.snapshot_us)
        midnights: np.ndarray = rows.groups.times_us // DAY_US * DAY_US
        cuts_us: np.ndarray = midnights[rows.group]
        return cuts_us

    def points(self, key: str, names: pa.Array, keys: np.ndarray) -> pa.Table:
        """What `features_at_cuts` is asked for: ids, and what they are asked at.

        Args:
            key: user_id or item_id.
            names: Ids by number.
            keys: Distinct `_keys` of numbers and instants.
        """
        cuts_us = ((keys & ((1 << DAY_BITS) - 1)) + FIRST_DAY) * DAY_US
        return _points(key, names.take(pa.array(keys >> DAY_BITS)), cuts_us)

    def of_all(self, key: str, names: pa.Array) -> pa.Table:
        """The same of ids, each once, of a snapshot."""
        assert self.snapshot_us is not None
        return _points(key, names, np.full(len(names), self.snapshot_us))


def _points(key: str, ids: pa.Array, cuts_us: np.ndarray) -> pa.Table:
    return pa.table([ids, pa.array(cuts_us).cast(TIMESTAMP)], names=[key, CUT])


def instants(params: SamplingParams, as_of_us: int | None) -> Instants:
    """Those of a run: of a snapshot the first cut, or `as_of_us` without cuts."""
    if params.with_features != SNAPSHOT:
        return Instants(None)
    cuts_us = params.split.cuts_us if params.split else ()
    snapshot_us = cuts_us[0] if cuts_us else as_of_us
    if snapshot_us is None:
        raise ValueError("A snapshot of features needs as_of_us or a cut.")
    return Instants(snapshot_us)


def ask_items(config: StoreConfig, index: ItemIndex, when: Instants) -> pa.Table:
    """All items, as a stage: a snapshot is asked for each of them once, whatever is drawn."""
    return when.of_all("item_id", index.item_ids)


def asked(pieces: Iterable[Rows], when: Instants, users: pa.Array, item_ids: pa.Array) -> Iterator[pa.Table]:
    """What some rows ask for: points of users, then those of items, each once.

    Args:
        pieces: The rows, some at a time.
        when: Before which instants.
        users, item_ids: Ids by number.
    """
    of_users, of_items = [NO_KEYS], [NO_KEYS]
    for rows in pieces:
        cuts_us = when.of(rows)
        of_users.append(np.unique(_keys(rows.users[rows.is_positive], cuts_us[rows.is_positive])))
        of_items.append(np.unique(_keys(rows.items, cuts_us)))
    yield when.points("user_id", users, np.unique(np.concatenate(of_users)))
    yield when.points("item_id", item_ids, np.unique(np.concatenate(of_items)))


@dataclass(frozen=True)
class Found:
    """A table of features at cuts, to be looked up by the number of an id, and a cut.

    Attributes:
        ranks: int64, by number: the place of the id among those in the table, -1 if it is not there.
        keys: int64, ascending: of each row `_keys` of the id's rank and the cut; None if each id has one.
        columns: The features.
    """

    ranks: np.ndarray
    keys: np.ndarray | None
    columns: pa.Table

    def rows_of(self, numbers: np.ndarray, cuts_us: np.ndarray) -> pa.Table:
        """The row of each number and cut, all of which were asked for."""
        places = self.ranks[numbers]
        if self.keys is not None:
            places = np.searchsorted(self.keys, _keys(places, cuts_us))
        return self.columns.take(pa.array(places))


def find(key: str, names: pa.Array, *tables: pa.Table) -> Found:
    """Makes features ready to be looked up.

    Args:
        key: user_id or item_id.
        names: Ids by number.
        tables: Of `features_at_cuts`; their shards follow each other.
    """
    table = pa.concat_tables(tables)
    ids = table[key].combine_chunks()
    is_new = np.ones(len(ids), np.bool_)
    is_new[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    # In the order of the table, which is that of bucket and id, ranks ascend and numbers need not.
    ranks = np.full(len(names), -1, np.int64)
    numbers = pc.index_in(ids.filter(pa.array(is_new)), value_set=names).to_numpy()
    ranks[numbers] = np.arange(numbers.size)
    keys = None
    if numbers.size < len(ids):
        keys = _keys(np.cumsum(is_new) - 1, table[CUT].cast(pa.int64()).to_numpy())
    return Found(ranks, keys, table.drop_columns([key, CUT, BUCKET]).combine_chunks())


def find_items(config: StoreConfig, index: ItemIndex, *tables: pa.Table) -> Found:
    """The features of all items, as a stage: every shard looks some up."""
    return find("item_id", index.item_ids, *tables)


@dataclass(frozen=True)
class FeatureColumns:
    """The columns of features.

    Attributes:
        params: Which ones.
        when: Before which instants.
        of_users: The users of the shard.
        of_items: All items.
    """

    params: SamplingParams
    when: Instants
    of_users: Found
    of_items: Found

    def of(self, rows: Rows) -> list[pa.Array]:
        """The features of each row's user and item."""
        cuts_us = self.when.of(rows)
        found = {
            "user": self.of_users.rows_of(rows.users, cuts_us),
            "item": self.of_items.rows_of(rows.items, cuts_us),
        }
        columns = (found[grain][feature.name] for grain, feature in chosen(self.params).values())
        return [column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in columns]


def _keys(codes: np.ndarray, cuts_us: np.ndarray) -> np.ndarray:
    """A number and a day as one, int64."""
    keys: np.ndarray = codes.astype(np.int64) << DAY_BITS | (cuts_us // DAY_US - FIRST_DAY)
    return keys
