"""What each family of features costs, and what features at many cut times do.

One process, without server and Ray, over parts that an upload has stored: with the family of counts alone,
then with each other family beside it, then with all; reading and writing included, the cheapest of some runs.
Then what training data asks for: users before the days of their positive events, items before those of all.
"""

import asyncio
import multiprocessing
import shutil
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow as pa
from rich.table import Table

from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.delta.tables import open_table, table_key
from headrace_compute.features import registry
from headrace_compute.features.cut_run import Wanted, features_at_cuts
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.registry import families, features_of
from headrace_compute.features.run import make_features
from headrace_compute.inputs.catalog import current_catalog
from headrace_compute.inputs.events import newest_event
from headrace_compute.inputs.source import read_source
from headrace_compute.inputs.workers import InProcess
from headrace_compute.model import StoreConfig, shard_plan
from headrace_compute.sink import PartSink
from headrace_compute.training.parameters import SamplingParams

RUNS = 3
BASE = "counts"
PARAMS = FeatureParams()
WRITTEN = "features/bench-families"
DECAYED = "engagement_score"
"""The one column that costs an event once for each later cut."""


@dataclass(frozen=True)
class Cost:
    """What was computed, and what the cheapest run took."""

    what: str
    seconds: float
    cpu_s: float


def costs(data: Path, tenant: str) -> list[Cost]:
    """What the interactions and items of a tenant cost, in the folder of a server that has ended."""
    others = [name for name in families(PARAMS) if name != BASE]
    measured = [_apart(BASE, _of_families, data, tenant, [BASE])]
    measured += [_apart(f"+ {name}", _of_families, data, tenant, [BASE, name]) for name in others]
    measured.append(_apart("all", _of_families, data, tenant, [BASE, *others]))
    for what, left_out in ((f"at cuts, without {DECAYED}", [DECAYED]), ("at cuts, all", [])):
        measured.append(_apart(what, _at_cuts, data, tenant, left_out))
    return measured


def table(measured: Sequence[Cost]) -> Table:
    """The costs for people, beside those of the first."""
    shown = Table("features, one process", "seconds", "CPU s", "CPU s beside counts")
    for cost in measured:
        beside = f"{cost.cpu_s - measured[0].cpu_s:+.2f}" if cost is not measured[0] else ""
        shown.add_row(cost.what, f"{cost.seconds:.2f}", f"{cost.cpu_s:.2f}", beside)
    return shown


def _apart(what: str, work: Callable[..., tuple[float, float]], *how: Any) -> Cost:
    """A cost, measured in a process of its own, so that each finds the same."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return Cost(what, *pool.apply(work, how))


def _of_families(data: Path, tenant: str, names: Sequence[str]) -> tuple[float, float]:
    registry.FAMILIES = tuple(each for each in registry.FAMILIES if registry.name_of(each) in names)
    config, interactions, items = _inputs(data, tenant)
    as_of_us, shards = newest_event(config, interactions.files) + 1, shard_plan(interactions.rows)

    async def run() -> None:
        prefix = f"{WRITTEN}/{uuid4()}"
        sinks = PartSink(f"{prefix}-users-"), PartSink(f"{prefix}-items-")
        how = (interactions.files, items.files, shards, as_of_us, PARAMS)
        await make_features(InProcess(config), *how, *sinks)

    taken = _cheapest(run)
    shutil.rmtree(data / WRITTEN)
    return taken


def _at_cuts(data: Path, tenant: str, left_out: Sequence[str]) -> tuple[float, float]:
    config, interactions, items = _inputs(data, tenant)
    shards, catalog = shard_plan(interactions.rows), current_catalog(config, items.files)
    users = _days(data, interactions.files, "user_id", SamplingParams.positive_types)
    of_items = _days(data, interactions.files, "item_id", INTERACTION_TYPES)
    of_item = tuple(each for each in features_of("item", PARAMS) if each.name not in left_out)
    wanted = Wanted([users], [of_items], features_of("user", PARAMS), of_item, PARAMS)

    async def run() -> None:
        workers = InProcess(config)
        source = await read_source(workers, interactions.files, catalog, shards, None, lambda *_: None)
        await features_at_cuts(workers, source, catalog, shards, wanted)

    return _cheapest(run)


def _days(data: Path, files: Sequence[Any], key: str, types: Sequence[str]) -> pa.Table:
    """Each user or item before the day of each of its events of some types."""
    how = {"paths": [str(data / file.key) for file in files], "types": list(types)}
    with duckdb.connect() as connection:
        connection.sql("SET TimeZone = 'UTC'")
        query = f"""SELECT DISTINCT {key}, date_trunc('day', timestamp) AS cut FROM read_parquet($paths)
            WHERE list_contains($types, interaction_type)"""
        days = connection.sql(query, params=how).to_arrow_table()
    return days.cast(pa.schema([(key, pa.string()), ("cut", pa.timestamp("us", tz="UTC"))]))


def _inputs(data: Path, tenant: str) -> tuple[StoreConfig, Any, Any]:
    config = StoreConfig(str(data))
    keys = (table_key(config, tenant, name) for name in ("interactions", "items"))
    interactions, items = (open_table(config, key) for key in keys)
    return config, interactions, items


def _cheapest(run: Callable[[], Coroutine[Any, Any, None]]) -> tuple[float, float]:
    """Seconds and CPU seconds of the run with the fewest of these; one before them loads what runs need."""
    asyncio.run(run())
    taken = []
    for _ in range(RUNS):
        cpu_s, started = time.process_time(), time.perf_counter()
        asyncio.run(run())
        taken.append((time.perf_counter() - started, time.process_time() - cpu_s))
    return min(taken, key=lambda each: each[1])
