"""What a pool on a real Ray makes of held results: run as a program, it prints what it saw as JSON.

A program of its own, as Ray can be started once in a process.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from harness.features import DEFAULTS, catalog_of, many_rows, store_rows
from headrace_compute.errors import InvalidFieldError
from headrace_compute.features.cut_run import Wanted, features_at_cuts
from headrace_compute.features.registry import features_of
from headrace_compute.features.run import tell
from headrace_compute.inputs.source import read_source
from headrace_compute.inputs.workers import InProcess, Workers
from headrace_compute.model import BUCKETS, DataFile, Shard, StoreConfig
from headrace_compute.workers.cluster import Cluster
from headrace_compute.workers.pool import Pool

LARGE = 1 << 20
"""So many numbers do not travel with the answer, but lie in Ray's object store."""


def give(config: StoreConfig, *numbers: int) -> Iterator[Any]:
    """An array for each number."""
    for number in numbers:
        yield np.full(LARGE, number)


def fail_after(config: StoreConfig, given: int) -> Iterator[Any]:
    """Fails when it has given so many arrays."""
    yield from give(config, *range(given))
    raise InvalidFieldError("The field is wrong.", {"field": "x"})


def add(config: StoreConfig, *arrays: Any) -> int:
    """The sum of all first numbers."""
    return int(sum(array[0] for array in arrays))


def double(config: StoreConfig, array: Any) -> Any:
    """Twice the numbers."""
    return array * 2


async def see(root: str) -> dict[str, Any]:
    """Holds, lets go, and asks again."""
    pool = Pool(StoreConfig(root), workers=1)
    await pool.open()
    seen: dict[str, Any] = {"failures": []}
    for given in (0, 1, 2):
        try:
            await pool.hold_each(2, fail_after, given)
        except InvalidFieldError as error:
            seen["failures"].append(error.attributes)
    first, second, third = await pool.hold_each(3, give, 1, 10, 100)
    seen["sum"] = await pool.run(add, first, second, third)
    doubled = await pool.hold(double, second)
    pool.let_go([second, third, doubled])
    seen["let_go"] = [held.ref is None for held in (first, second, third, doubled)]
    # What was made of it, too, and from it.
    seen["again"] = await pool.run(add, first, doubled)
    seen["kept"] = await pool.run(add, first, second)
    files = store_rows(StoreConfig(root), [many_rows()[:800], many_rows()[800:]])
    here = await at_cuts(InProcess(StoreConfig(root)), files)
    seen["cuts"] = [table.num_rows for table in here]
    seen["same"] = here == await at_cuts(pool, files)
    return seen


async def at_cuts(workers: Workers, files: Sequence[DataFile]) -> list[pa.Table]:
    """Features of users and items before the instants of some events, of two shards each."""
    plan, catalog = [Shard(0, 300), Shard(300, BUCKETS)], await workers.put(catalog_of(i3="Three"))
    source = await read_source(workers, files, catalog, plan, None, lambda *_: None)
    some = many_rows()[:50]
    cuts = pa.array([row[3] for row in some], pa.timestamp("us", tz="UTC"))
    users = pa.table({"user_id": [row[0] for row in some], "cut": cuts})
    items = pa.table({"item_id": [row[1] for row in some], "cut": cuts})
    features = features_of("user", DEFAULTS), features_of("item", DEFAULTS)
    made = await features_at_cuts(
        workers, source, catalog, plan, Wanted([users], [items], *features, DEFAULTS)
    )
    return [await workers.run(tell, held) for held in (*made.users, *made.items)]


def main() -> None:
    """Prints what was seen."""
    cluster = Cluster("", 1)
    try:
        sys.stdout.write(json.dumps(asyncio.run(see(sys.argv[1]))))
    finally:
        cluster.leave()


if __name__ == "__main__":
    main()
