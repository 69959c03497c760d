"""The source of a run, as its driver holds it: read once, its items numbered, a share for each shard."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace_compute.inputs.exchange import exchange
from headrace_compute.inputs.numbering import number_items
from headrace_compute.inputs.workers import Progress, Workers, each
from headrace_compute.model import DataFile, Shard, batch_plan


@dataclass
class Source:
    """Held results, to be passed to stages.

    Attributes:
        numbering: The Numbering of all items.
        shares: For each shard the slices of all batches, in their order; what `gather` takes.
    """

    numbering: Any
    shares: list[list[Any]]


async def read_source(
    workers: Workers,
    files: Sequence[DataFile],
    catalog: Any,
    shards: Sequence[Shard],
    as_of_us: int | None,
    progress: Progress,
) -> Source:
    """Reads interactions before `as_of_us` (None: all), each file once.

    Args:
        catalog: The current catalog, or what holds it; None if there is none.
        shards: Ranges of buckets that follow each other and cover all.
    """
    batches = batch_plan(files)
    reading = [workers.hold_each(1 + len(shards), exchange, batch, shards, as_of_us) for batch in batches]
    read = await each("read", reading, progress)
    numbering = await workers.hold(number_items, catalog, *(items for items, *_ in read))
    return Source(numbering, [[slices[1 + number] for slices in read] for number in range(len(shards))])
