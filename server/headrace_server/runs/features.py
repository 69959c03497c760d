"""ComputeFeatures: both feature tables of a tenant, from pinned inputs."""

import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from headrace.v1 import run_pb2
from headrace_compute.delta import tables
from headrace_compute.features.aggregate import ITEM_SCHEMA, USER_SCHEMA
from headrace_compute.features.run import FeatureTables, make_features
from headrace_compute.inputs.events import no_interactions
from headrace_compute.model import Kind, Snapshot
from headrace_compute.pool import RunExecutor
from headrace_compute.report import warning_of
from headrace_server import metrics
from headrace_server.rpc import messages, requests
from headrace_server.runs.inputs import RunInputs, pin_inputs, timestamp_message, version_message
from headrace_server.runs.outputs import row_messages
from headrace_server.runs.progress import Reported
from headrace_server.runs.run import begun
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
    tenant = requests.check_tenant(request.tenant_id)
    with services.runs.enter(tenant):
        executor = services.pool.run_executor(tenant, uuid.uuid4().hex)
        inputs = await pin_inputs(services, executor, request)
        run = Reported(lambda report: _run(services, executor, inputs, report))
        async for progress in run.progress():
            yield run_pb2.ComputeFeaturesResponse(progress=progress)
    if request.include_rows:
        for snapshot in (run.result.users, run.result.items):
            async for rows in row_messages(services, snapshot):
                yield run_pb2.ComputeFeaturesResponse(rows=rows)
    metrics.RUN_SECONDS.labels("features").observe(time.monotonic() - started)
    yield run_pb2.ComputeFeaturesResponse(result=_result(inputs, run.result))


async def _run(
    services: Services, executor: RunExecutor, inputs: RunInputs, report: Callable[[str, int, int], None]
) -> FeaturesRun:
    users_key = tables.user_features_key(services.config, inputs.tenant)
    items_key = tables.item_features_key(services.config, inputs.tenant)
    outputs: dict[str, Kind] = {users_key: "user_features", items_key: "item_features"}
    async with begun(services, executor, inputs.tenant, outputs) as run:
        made = await make_features(
            executor,
            inputs.interactions.files,
            inputs.items.files if inputs.items else (),
            inputs.shards,
            inputs.as_of_us,
            run.part_prefix(users_key),
            run.part_prefix(items_key),
            report,
            run.admit,
        )
        if made.interactions == 0:
            raise no_interactions(inputs.as_of_us)
        report("commit", 0, 2)
        lineage = inputs.lineage(services, {})
        users = await run.commit(users_key, USER_SCHEMA, made.users, lineage)
        report("commit", 1, 2)
        items = await run.commit(items_key, ITEM_SCHEMA, made.items, lineage)
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
