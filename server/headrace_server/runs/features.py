"""ComputeFeatures: both feature tables of a tenant, from pinned inputs."""

import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from headrace.v1 import run_pb2
from headrace_compute.errors import NoInteractionsError
from headrace_compute.model import Snapshot
from headrace_compute.report import iso_time, warning_of
from headrace_compute.stages.feature_tables import FeatureTables, make_features
from headrace_compute.stages.features import ITEM_SCHEMA, USER_SCHEMA
from headrace_compute.storage import tables
from headrace_server import messages, metrics
from headrace_server.runs.inputs import RunInputs, pin_inputs, timestamp_message, version_message
from headrace_server.runs.outputs import commit_output, row_messages
from headrace_server.runs.progress import Reported
from headrace_server.services import Services


@dataclass(frozen=True)
class FeaturesRun:
    """What a features run committed."""

    users: Snapshot
    items: Snapshot
    made: FeatureTables


async def compute_features(
    services: Services, request: run_pb2.ComputeFeaturesRequest
) -> AsyncIterator[run_pb2.ComputeFeaturesResponse]:
    """Serves one ComputeFeatures call; the client's going away cancels the run."""
    started = time.monotonic()
    inputs = await pin_inputs(services, request)
    run = Reported(lambda report: _run(services, inputs, report))
    async for progress in run.progress():
        yield run_pb2.ComputeFeaturesResponse(progress=progress)
    if request.include_rows:
        for snapshot in (run.result.users, run.result.items):
            async for rows in row_messages(services, snapshot):
                yield run_pb2.ComputeFeaturesResponse(rows=rows)
    metrics.RUN_SECONDS.labels("features").observe(time.monotonic() - started)
    yield run_pb2.ComputeFeaturesResponse(result=_result(inputs, run.result))


async def _run(services: Services, inputs: RunInputs, report: Callable[[str, int, int], None]) -> FeaturesRun:
    run_id = uuid.uuid4().hex
    users_key = tables.user_features_key(services.config, inputs.tenant)
    items_key = tables.item_features_key(services.config, inputs.tenant)
    made = await make_features(
        services.pool,
        inputs.interactions.files,
        inputs.items.files if inputs.items else (),
        inputs.shards,
        inputs.as_of_us,
        f"{users_key}/{run_id}-",
        f"{items_key}/{run_id}-",
        report,
    )
    if made.interactions == 0:
        as_of = iso_time(inputs.as_of_us)
        raise NoInteractionsError(
            f"tenant {inputs.tenant} has no interactions before {as_of}; choose a later as_of",
            {"as_of": as_of},
        )
    report("commit", 0, 2)
    lineage = inputs.lineage(services, {})
    users = await commit_output(
        services, inputs.tenant, users_key, "user_features", USER_SCHEMA, made.users, run_id, lineage
    )
    report("commit", 1, 2)
    items = await commit_output(
        services, inputs.tenant, items_key, "item_features", ITEM_SCHEMA, made.items, run_id, lineage
    )
    report("commit", 2, 2)
    return FeaturesRun(users, items, made)


def _result(inputs: RunInputs, run: FeaturesRun) -> run_pb2.FeaturesResult:
    result = run_pb2.FeaturesResult(
        inputs=inputs.versions(),
        outputs=[version_message(run.users), version_message(run.items)],
        as_of=timestamp_message(inputs.as_of_us),
        interactions=run.made.interactions,
    )
    unknown = run.made.unknown
    if unknown.interactions:
        warning = warning_of("UNKNOWN_ITEM", "item_id", unknown.interactions, unknown.samples)
        result.warnings.append(messages.warning_message(warning))
    return result
