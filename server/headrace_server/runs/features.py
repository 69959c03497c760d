"""ComputeFeatures: both feature tables of a tenant, from pinned inputs."""

import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass

from headrace.v1 import feature_pb2, run_pb2
from headrace_compute.delta import tables
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.registry import families, schema_of
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
    params = feature_params(request)
    with services.runs.enter(tenant):
        executor = services.pool.run_executor(tenant, uuid.uuid4().hex)
        inputs = await pin_inputs(services, executor, request)
        run = Reported(lambda report: _run(services, executor, inputs, params, report))
        async for progress in run.progress():
            yield run_pb2.ComputeFeaturesResponse(progress=progress)
    if request.include_rows:
        for snapshot in (run.result.users, run.result.items):
            async for rows in row_messages(services, snapshot):
                yield run_pb2.ComputeFeaturesResponse(rows=rows)
    metrics.RUN_SECONDS.labels("features").observe(time.monotonic() - started)
    yield run_pb2.ComputeFeaturesResponse(result=_result(inputs, run.result))


def feature_params(request: run_pb2.ComputeFeaturesRequest) -> FeatureParams:
    """A request's parameters, with the defaults for those it leaves out.

    Raises:
        InvalidFieldError: A value is out of range.
    """
    params = FeatureParams()
    half_life_days = request.half_life_days if request.HasField("half_life_days") else params.half_life_days
    return FeatureParams(
        windows=tuple(sorted(set(request.windows))) or params.windows,
        weights={**params.weights, **request.weights},
        half_life_days=half_life_days,
        smoothing=request.smoothing if request.HasField("smoothing") else params.smoothing,
    )


def describe_features(
    request: feature_pb2.DescribeFeaturesRequest,
) -> feature_pb2.DescribeFeaturesResponse:
    """Serves DescribeFeatures.

    Raises:
        InvalidFieldError: A window is out of range.
    """
    params = FeatureParams(windows=tuple(sorted(set(request.windows))) or FeatureParams().windows)
    described = [
        feature_pb2.Feature(
            table=f"{feature.grain}_features",
            name=feature.name,
            type=str(feature.type),
            meaning=feature.meaning,
            unit=feature.unit,
            null_when=feature.null_when,
            family=family,
        )
        for family, features in families(params).items()
        for feature in features
    ]
    # Each table's in the order of its columns; sorting is stable.
    described.sort(key=lambda feature: feature.table, reverse=True)
    return feature_pb2.DescribeFeaturesResponse(features=described)


async def _run(
    services: Services,
    executor: RunExecutor,
    inputs: RunInputs,
    params: FeatureParams,
    report: Callable[[str, int, int], None],
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
            params,
            run.part_prefix(users_key),
            run.part_prefix(items_key),
            report,
            run.admit,
        )
        if made.interactions == 0:
            raise no_interactions(inputs.as_of_us)
        report("commit", 0, 2)
        lineage = inputs.lineage(services, asdict(params))
        users = await run.commit(users_key, schema_of("user", params), made.users, lineage)
        report("commit", 1, 2)
        items = await run.commit(items_key, schema_of("item", params), made.items, lineage)
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
