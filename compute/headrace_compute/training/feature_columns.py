"""Features in the rows of training data: what is asked for, and the columns that are made of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.columns import BUCKET
from headrace_compute.delta.layout import TIMESTAMP
from headrace_compute.features.feature import GRAINS, Feature, Grain
from headrace_compute.features.parameters import DAY_US, FeatureParams
from headrace_compute.features.registry import CUT, features_of
from headrace_compute.features.snapshot import ITEM_CODE, items_at
from headrace_compute.inputs.numbering import Numbering
from headrace_compute.model import StoreConfig
from headrace_compute.training.items import ItemIndex
from headrace_compute.training.pairs import Positives
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


def snapshot_us(params: SamplingParams, as_of_us: int | None) -> int | None:
    """The instant of a run's snapshot: the first cut, or `as_of_us` without cuts; None without a snapshot."""
    if params.with_features != SNAPSHOT:
        return None
    cuts_us = params.split.cuts_us if params.split else ()
    instant_us = cuts_us[0] if cuts_us else as_of_us
    if instant_us is None:
        raise ValueError("A snapshot of features needs as_of_us or a cut.")
    return instant_us


def asked(pieces: Iterable[Rows], users: pa.Array, item_ids: pa.Array) -> Iterator[pa.Table]:
    """What some rows ask for, before the day of each: points of users, then those of items, each once.

    Args:
        pieces: The rows, some at a time.
        users, item_ids: Ids by number.
    """
    of_users, of_items = [NO_KEYS], [NO_KEYS]
    for rows in pieces:
        cuts_us = _midnights(rows)
        of_users.append(np.unique(_keys(rows.users[rows.is_positive], cuts_us[rows.is_positive])))
        of_items.append(np.unique(_keys(rows.items, cuts_us)))
    yield _points("user_id", users, np.unique(np.concatenate(of_users)))
    yield _points("item_id", item_ids, np.unique(np.concatenate(of_items)))


def _points(key: str, names: pa.Array, keys: np.ndarray) -> pa.Table:
    """What `features_at_cuts` is asked for: ids, and what they are asked at.

    Args:
        key: user_id or item_id.
        names: Ids by number.
        keys: Distinct `_keys` of numbers and instants.
    """
    cuts_us = ((keys & ((1 << DAY_BITS) - 1)) + FIRST_DAY) * DAY_US
    ids = names.take(pa.array(keys >> DAY_BITS))
    return pa.table([ids, pa.array(cuts_us).cast(TIMESTAMP)], names=[key, CUT])


@dataclass(frozen=True)
class Found:
    """Features to be looked up by the number of a user or item, and a cut if there are several.

    Attributes:
        columns: The features.
        places: int64, by number: the place of the id among those of the table, -1 if it is not there. None:
            the number is the place.
        keys: int64, ascending: of each row `_keys` of the id's place and the cut; None if each has one.
    """

    columns: pa.Table
    places: np.ndarray | None = None
    keys: np.ndarray | None = None

    def rows_of(self, numbers: np.ndarray, rows: Rows) -> pa.Table:
        """The row of each number, at its row's cut; all were asked for."""
        places = numbers if self.places is None else self.places[numbers]
        if self.keys is not None:
            places = np.searchsorted(self.keys, _keys(places, _midnights(rows)))
        return self.columns.take(pa.array(places))


def by_number(rows: pa.Table, features: Sequence[Feature]) -> Found:
    """Makes features ready to be looked up that have a row for each number, in their order."""
    schema = pa.schema([(feature.name, feature.type) for feature in features])
    return Found(rows.select(schema.names).cast(schema).combine_chunks())


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
    # In the order of the table, which is that of bucket and id, places ascend and numbers need not.
    places = np.full(len(names), -1, np.int64)
    numbers = pc.index_in(ids.filter(pa.array(is_new)), value_set=names).to_numpy()
    places[numbers] = np.arange(numbers.size)
    keys = None
    if numbers.size < len(ids):
        keys = _keys(np.cumsum(is_new) - 1, table[CUT].cast(pa.int64()).to_numpy())
    return Found(table.drop_columns([key, CUT, BUCKET]).combine_chunks(), places, keys)


def find_users(config: StoreConfig, positives: Positives, table: pa.Table) -> Found:
    """The features of a shard's users at many cuts, as a stage."""
    return find("user_id", positives.users, table)


def find_items(config: StoreConfig, index: ItemIndex, *tables: pa.Table) -> Found:
    """The features of all items at many cuts, as a stage: every shard looks some up."""
    return find("item_id", index.item_ids, *tables)


def snapshot_items(
    config: StoreConfig,
    params: SamplingParams,
    instant_us: int,
    catalog: pa.Table | None,
    numbering: Numbering,
    totals: pa.Table,
) -> Found:
    """The features of all items as of one instant, as a stage.

    Args:
        config: Unused.
        params: Which ones.
        instant_us: Microseconds since the epoch.
        catalog: CATALOG_SCHEMA (current_catalog); None if there is none.
        numbering: Of all items.
        totals: What the items of all shards have: `add_partials`.
    """
    features = chosen_of(params, "item")
    rows = items_at(instant_us, FEATURE_PARAMS, features, catalog, numbering, totals)
    places = np.empty(len(rows), np.int64)
    places[rows[ITEM_CODE].to_numpy()] = np.arange(len(rows))
    return replace(by_number(rows, features), places=places)


@dataclass(frozen=True)
class FeatureColumns:
    """The columns of features.

    Attributes:
        params: Which ones.
        of_users: The users of the shard.
        of_items: All items.
    """

    params: SamplingParams
    of_users: Found
    of_items: Found

    def of(self, rows: Rows) -> list[pa.Array]:
        """The features of each row's user and item."""
        found = {
            "user": self.of_users.rows_of(rows.users, rows),
            "item": self.of_items.rows_of(rows.items, rows),
        }
        columns = (found[grain][feature.name] for grain, feature in chosen(self.params).values())
        return [column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in columns]


def _midnights(rows: Rows) -> np.ndarray:
    """00:00 UTC of the day of each row's positive: microseconds since the epoch, int64."""
    midnights: np.ndarray = rows.groups.times_us // DAY_US * DAY_US
    cuts_us: np.ndarray = midnights[rows.group]
    return cuts_us


def _keys(codes: np.ndarray, cuts_us: np.ndarray) -> np.ndarray:
    """A number and a day as one, int64."""
    keys: np.ndarray = codes.astype(np.int64) << DAY_BITS | (cuts_us // DAY_US - FIRST_DAY)
    return keys
