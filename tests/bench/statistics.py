"""`make bench-stats`: what the statistics of features cost beside the features they are of.

One shard of a million events in this process, without server and Ray; CPU seconds.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pyarrow as pa

from headrace_compute.features.aggregate import user_features
from headrace_compute.features.parameters import DAY_US, FeatureParams
from headrace_compute.inputs.events import gather
from headrace_compute.inputs.exchange import encode_rows
from headrace_compute.inputs.numbering import number_items
from headrace_compute.model import StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part
from headrace_compute.statistics.sketch import merge_tables, sketch_table
from headrace_compute.statistics.summary import statistics_of, to_json

T = TypeVar("T")

AS_OF_US = 1_767_225_600_000_000
DAYS = 90
ROUNDS = 5


def main() -> None:
    """Prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--events", type=int, default=1_000_000)
    arguments.add_argument("--users", type=int, default=100_000)
    given = arguments.parse_args()
    config = StoreConfig(tempfile.mkdtemp())
    item_ids, rows = encode_rows(events(given.events, given.users))
    numbering = number_items(config, None, item_ids)
    gathered = gather(numbering, [rows])
    features_s, (users, _) = best(lambda: user_features(gathered, AS_OF_US, FeatureParams()))
    keys = iter(range(ROUNDS))
    store = open_store(config)
    write_s, _ = best(lambda: write_part(store, f"features/{next(keys)}.parquet", users))
    sketch_s, sketch = best(lambda: sketch_table(users, "user_id", AS_OF_US))
    merge_s, _ = best(lambda: merge_tables(sketch, sketch))
    text_s, text = best(lambda: to_json(statistics_of(sketch, AS_OF_US)))
    print(f"{given.events:,} events, {users.num_rows:,} users, {users.num_columns} columns")
    print(f"features {features_s:.3f} s, part {write_s:.3f} s, CPU")
    print(f"sketch   {sketch_s:.3f} s: {100 * sketch_s / (features_s + write_s):.1f} % of these")
    print(f"merge    {merge_s:.4f} s for two shards; statistics {text_s:.4f} s a table, {len(text):,} bytes")


def events(count: int, users: int) -> pa.Table:
    """Rows with the columns of the contract."""
    dice = np.random.default_rng(0)
    types = np.array(["view", "click", "purchase", "like"])[dice.integers(0, 4, count)]
    ratings = np.where(dice.random(count) < 0.1, dice.integers(1, 6, count), np.nan)
    times = AS_OF_US - dice.integers(1, DAYS * DAY_US, count)
    return pa.table(
        {
            "user_id": [f"user{user:07d}" for user in dice.integers(0, users, count)],
            "item_id": [f"item{item:06d}" for item in dice.zipf(1.3, count) % 20_000],
            "interaction_type": types,
            "timestamp": pa.array(times, pa.timestamp("us", tz="UTC")),
            "rating": pa.array(ratings, from_pandas=True),
        }
    )


def best(work: Callable[[], T]) -> tuple[float, T]:
    """The least CPU seconds of some rounds, and what the last one gave."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        found = work()
        seconds.append(time.process_time() - began)
    return min(seconds), found


if __name__ == "__main__":
    main()
