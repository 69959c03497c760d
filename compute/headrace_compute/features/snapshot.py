"""Features as of one instant, by number: of the users of a shard, and of all items.

Users are whole in their shard. Of items each shard has partials, which are integers: added up, they are the
same whatever the shard plan.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from headrace_compute import cancellation
from headrace_compute.columns import BUCKET
from headrace_compute.features.feature import Feature
from headrace_compute.features.grouping import Grouping
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.queries import items_query, totals_query, users_query
from headrace_compute.features.registry import partials_of
from headrace_compute.inputs.catalog import CATALOG_SCHEMA
from headrace_compute.inputs.duckdb_session import DuckDBSession
from headrace_compute.inputs.events import Events
from headrace_compute.inputs.numbering import Numbering
from headrace_compute.kernels.hashing import bucket_of, xxh64_strings
from headrace_compute.model import StoreConfig

ITEM_CODE = "item_code"


def aggregate(
    events: Events,
    as_of_us: int,
    params: FeatureParams,
    of_users: Sequence[Feature],
    of_items: Sequence[Feature],
) -> tuple[pa.Table, pa.Table]:
    """Features of a shard's users, and what those of its items are made of.

    Args:
        events: The shard, with nothing at or after `as_of_us`.
        as_of_us: The instant, microseconds since the epoch.
        params: What windows, weights and so on are.
        of_users, of_items: The features that are wanted.

    Returns:
        user_code, of all users in their order, and their features, of the types that DuckDB gives, lists of
        items with their numbers. Then item_code, of items that have events, and the partials of features.
    """
    values = params.values(as_of_us)
    user_partials, item_partials = partials_of(of_users), partials_of(of_items)
    grouping = Grouping(events, (*user_partials, *item_partials), values)
    cancellation.check()
    with DuckDBSession({"aggregates": grouping.users(user_partials)}) as session:
        users = session.query(users_query(of_users), values)
    return users, grouping.items(item_partials)


def add_partials(config: StoreConfig, features: Sequence[Feature], *partials: pa.Table) -> pa.Table:
    """The partials of some item features, of several shards, added up; in any order they give the same."""
    with DuckDBSession({"partials": pa.concat_tables(partials)}) as session:
        return session.query(totals_query(features))


def items_at(
    as_of_us: int,
    params: FeatureParams,
    features: Sequence[Feature],
    catalog: pa.Table | None,
    numbering: Numbering,
    totals: pa.Table,
) -> pa.Table:
    """Features of all items.

    Args:
        as_of_us: The instant, microseconds since the epoch.
        params: What windows, weights and so on are.
        features: The features that are wanted.
        catalog: CATALOG_SCHEMA (current_catalog); None if the tenant has no items.
        numbering: Of all items.
        totals: `add_partials` over all shards.

    Returns:
        item_code, the features, of the types that DuckDB gives, bucket and in_catalog (bool), in the order of
        bucket and item_code.
    """
    codes = np.arange(len(numbering), dtype=np.int32)
    tables = {
        "items": pa.table({ITEM_CODE: codes, BUCKET: bucket_of(xxh64_strings(numbering.item_ids))}),
        "totals": totals,
        "catalog": listed_by_number(catalog, numbering),
    }
    with DuckDBSession(tables) as session:
        return session.query(items_query(features), params.values(as_of_us))


def listed_by_number(catalog: pa.Table | None, numbering: Numbering) -> pa.Table:
    """A catalog (CATALOG_SCHEMA; None if there is none) with item_code in the place of item_id and bucket."""
    known = CATALOG_SCHEMA.empty_table() if catalog is None else catalog
    return known.drop_columns(["item_id", BUCKET]).append_column(ITEM_CODE, pa.array(numbering.listed))
