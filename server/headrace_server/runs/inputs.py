"""The inputs of a run: table versions, pinned before it starts."""

import asyncio
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import timestamp_pb2

from headrace.v1 import run_pb2
from headrace_compute.delta import tables
from headrace_compute.errors import TableNotFoundError
from headrace_compute.inputs.events import newest_event, no_interactions
from headrace_compute.model import DataType, Shard, Snapshot
from headrace_compute.report import END_US, iso_time
from headrace_compute.workers.pool import Executor
from headrace_server import __version__
from headrace_server.rpc import requests
from headrace_server.services import Services

RunRequest = run_pb2.ComputeFeaturesRequest | run_pb2.SampleNegativesRequest


@dataclass(frozen=True)
class RunInputs:
    """The pinned inputs of a run.

    Attributes:
        items: None if the tenant has no items.
        as_of_us: Exclusive end of the events that count.
    """

    tenant: str
    interactions: Snapshot
    items: Snapshot | None
    as_of_us: int

    def versions(self) -> list[run_pb2.TableVersion]:
        """The inputs, for the result."""
        return [version_message(table) for table in (self.interactions, self.items) if table is not None]

    def lineage(self, parameters: Mapping[str, Any], shards: Sequence[Shard]) -> dict[str, str]:
        """Commit metadata that says how to derive the output again."""
        return {
            "headrace.interactions_version": str(self.interactions.version),
            "headrace.items_version": "" if self.items is None else str(self.items.version),
            "headrace.as_of_us": str(self.as_of_us),
            "headrace.shards": str(len(shards)),
            "headrace.parameters": json.dumps(parameters, sort_keys=True),
            "headrace.code_version": __version__,
        }


def check_inputs(request: RunRequest) -> None:
    """Checks what a request says of its inputs, as far as that needs no look at tables.

    Raises:
        InvalidFieldError: A value is out of range.
    """
    requests.check_tenant(request.tenant_id)
    if request.HasField("as_of"):
        requests.instant_us("as_of", request.as_of)
    if request.HasField("known_at"):
        requests.instant_us("known_at", request.known_at)


async def pin_inputs(
    services: Services, executor: Executor, request: RunRequest, *, with_items: bool = True
) -> RunInputs:
    """Pins the versions that a request names, the newest by default.

    Args:
        with_items: Whether to look for items; a run that found none has none wherever it goes on.

    Raises:
        NoInteractionsError: The tenant has no interactions.
        VersionNotFoundError: A version does not exist.
    """
    tenant = requests.check_tenant(request.tenant_id)
    interactions, items = await _pin_tables(services, request, with_items)
    if request.HasField("as_of"):
        as_of_us = requests.instant_us("as_of", request.as_of)
    else:
        as_of_us = await executor.run(newest_event, interactions.files) + 1
    return RunInputs(tenant, interactions, items, as_of_us)


async def pin_versions(services: Services, request: RunRequest) -> tuple[RunRequest, bool]:
    """As `pin_inputs`, without a worker, for a run that must wait: a request that gives the same later.

    Returns:
        The request, and whether the run has items. An as_of left out stays so: it follows from the version.

    Raises:
        NoInteractionsError: The tenant has no interactions.
        VersionNotFoundError: A version does not exist.
    """
    interactions, items = await _pin_tables(services, request, with_items=True)
    return _naming(request, interactions, items), items is not None


def pinned(request: RunRequest, inputs: RunInputs) -> RunRequest:
    """A request that names what was pinned for another one: it gives the same inputs at any time."""
    exact = _naming(request, inputs.interactions, inputs.items)
    exact.as_of.CopyFrom(timestamp_message(inputs.as_of_us))
    return exact


def _naming(request: RunRequest, interactions: Snapshot, items: Snapshot | None) -> RunRequest:
    exact = copy.deepcopy(request)
    exact.ClearField("known_at")
    exact.interactions_version = interactions.version
    if items is not None:
        exact.items_version = items.version
    return exact


async def _pin_tables(
    services: Services, request: RunRequest, with_items: bool
) -> tuple[Snapshot, Snapshot | None]:
    """Interactions and items, of the versions that a request names, or the newest."""
    known_us = requests.instant_us("known_at", request.known_at) if request.HasField("known_at") else None
    interactions = await _pin(services, "interactions", request, known_us)
    if interactions is None:
        raise no_interactions(None, known_us)
    items = await _pin(services, "items", request, known_us) if with_items else None
    return interactions, items


async def _pin(
    services: Services, name: DataType, request: RunRequest, known_us: int | None
) -> Snapshot | None:
    """The version of an input that a run reads; None if there was none.

    Raises:
        VersionNotFoundError: The version that the request names does not exist.
        InvalidFieldError: It was committed after `known_us`.
    """
    key = tables.table_key(services.config, request.tenant_id, name)
    field = f"{name}_version"
    named = getattr(request, field) if request.HasField(field) else None  # type: ignore[arg-type]
    try:
        if named is None and known_us is not None:
            return await asyncio.to_thread(tables.open_known, services.config, key, known_us)
        snapshot = await asyncio.to_thread(tables.open_table, services.config, key, named)
    except TableNotFoundError:
        if named is not None and name == "items":
            raise
        return None
    if known_us is not None and snapshot.committed_us > known_us:
        raise requests.invalid(
            field,
            f"Field {field} is {named}, which was committed at {iso_time(snapshot.committed_us)}, "
            f"after known_at = {iso_time(known_us)}; leave one of the two out.",
        )
    return snapshot


def version_message(snapshot: Snapshot) -> run_pb2.TableVersion:
    """A table version of a result."""
    return run_pb2.TableVersion(
        table=tables.table_name(snapshot.table_key),
        table_uri=snapshot.uri,
        version=snapshot.version,
        rows=snapshot.rows,
    )


def timestamp_message(time_us: int) -> timestamp_pb2.Timestamp:
    """A point in time of a result; the end of the year 9999, which none has, as its last nanosecond."""
    message = timestamp_pb2.Timestamp()
    if time_us >= END_US:
        message.FromNanoseconds(END_US * 1000 - 1)
    else:
        message.FromMicroseconds(time_us)
    return message
