"""The inputs of a run: table versions, pinned before it starts."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import timestamp_pb2

from headrace.v1 import run_pb2
from headrace_compute.delta import tables
from headrace_compute.errors import TableNotFoundError, UnsupportedError
from headrace_compute.inputs.events import END_US, newest_event, no_interactions
from headrace_compute.model import Shard, Snapshot, shard_plan
from headrace_compute.pool import Executor
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
        shards: Depends on the pinned version alone, so equal inputs give equal files.
    """

    tenant: str
    interactions: Snapshot
    items: Snapshot | None
    as_of_us: int
    shards: tuple[Shard, ...]

    def versions(self) -> list[run_pb2.TableVersion]:
        """The inputs, for the result."""
        return [version_message(table) for table in (self.interactions, self.items) if table is not None]

    def lineage(self, services: Services, parameters: Mapping[str, Any]) -> dict[str, str]:
        """Commit metadata that says how to derive the output again."""
        return {
            "headrace.interactions_version": str(self.interactions.version),
            "headrace.items_version": "" if self.items is None else str(self.items.version),
            "headrace.as_of_us": str(self.as_of_us),
            "headrace.shards": str(len(self.shards)),
            "headrace.parameters": json.dumps(parameters, sort_keys=True),
            "headrace.code_version": __version__,
        }


async def pin_inputs(services: Services, executor: Executor, request: RunRequest) -> RunInputs:
    """Pins the versions that a request names, the newest by default.

    Raises:
        NoInteractionsError: The tenant has no interactions.
        VersionNotFoundError: A version does not exist.
        UnsupportedError: The request has a request_id.
    """
    tenant = requests.check_tenant(request.tenant_id)
    if request.request_id:
        raise UnsupportedError(
            "Field request_id is not implemented in this version; leave it out.", {"feature": "request_id"}
        )
    config = services.config
    try:
        interactions = await asyncio.to_thread(
            tables.open_table,
            config,
            tables.interactions_key(config, tenant),
            request.interactions_version if request.HasField("interactions_version") else None,
        )
    except TableNotFoundError:
        raise no_interactions(None) from None
    items = await _pin_items(services, tenant, request)
    if request.HasField("as_of"):
        as_of_us = requests.instant_us("as_of", request.as_of)
    else:
        as_of_us = await executor.run(newest_event, interactions.files) + 1
    return RunInputs(tenant, interactions, items, as_of_us, shard_plan(interactions.rows))


async def _pin_items(services: Services, tenant: str, request: RunRequest) -> Snapshot | None:
    named = request.items_version if request.HasField("items_version") else None
    key = tables.items_key(services.config, tenant)
    try:
        return await asyncio.to_thread(tables.open_table, services.config, key, named)
    except TableNotFoundError:
        if named is not None:
            raise
        return None


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
