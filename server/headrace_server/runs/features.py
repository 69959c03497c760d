"""ComputeFeatures: both feature tables of a tenant, from pinned inputs."""

import asyncio
import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from headrace.v1 import feature_pb2, run_pb2
from headrace_compute.delta import tables
from headrace_compute.features.feature import TABLES
from headrace_compute.features.parameters import FeatureParams
from headrace_compute.features.registry import families, schema_of
from headrace_compute.features.run import FeatureTables, make_features
from headrace_compute.inputs.events import no_interactions
from headrace_compute.inputs.workers import Admit, Progress
from headrace_compute.model import Kind, Shard, Snapshot, StoreConfig, shard_plan
from headrace_compute.report import warning_of
from headrace_compute.sink import Sink, W
from headrace_compute.statistics.drift import DriftLimits
from headrace_compute.workers.pool import RunExecutor
from headrace_server.lineage import Lineage
from headrace_server.rpc import messages, requests
from headrace_server.runs.inputs import RunInputs, check_inputs, timestamp_message
from headrace_server.runs.job import Made, MadeTable, RunKind
from headrace_server.runs.statistics import check_baselines
from headrace_server.services import Services

EXAMPLE_COLUMN = "user_features.avg_rating"


@dataclass(frozen=True)
class FeaturesJob:
    """Both feature tables of a tenant."""

    config: StoreConfig
    inputs: RunInputs
    params: FeatureParams
    limits: DriftLimits
    users_key: str
    items_key: str

    @property
    def outputs(self) -> Mapping[str, Kind]:
        """The two tables."""
        return {self.users_key: "user_features", self.items_key: "item_features"}

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What is counted, and how."""
        return asdict(self.params)

    @property
    def shards(self) -> Sequence[Shard]:
        """Equal parts of the users."""
        return shard_plan(self.inputs.interactions.rows)

    async def make(
        self, executor: RunExecutor, sink: Callable[[str], Sink[W]], report: Progress, admit: Admit
    ) -> Made[W]:
        """Makes both tables.

        Raises:
            NoInteractionsError: There are none before as_of.
            NotFoundError: There is no such version to compare with.
        """
        inputs = self.inputs
        await asyncio.to_thread(check_baselines, self.config, inputs.tenant, self.limits)
        made = await make_features(
            executor,
            inputs.interactions.files,
            inputs.items.files if inputs.items else (),
            self.shards,
            inputs.as_of_us,
            self.params,
            sink(self.users_key),
            sink(self.items_key),
            report,
            admit,
        )
        if made.interactions == 0:
            raise no_interactions(inputs.as_of_us)
        users = MadeTable(
            self.users_key, "user_features", schema_of("user", self.params), made.users, made.user_statistics
        )
        items = MadeTable(
            self.items_key, "item_features", schema_of("item", self.params), made.items, made.item_statistics
        )
        return Made((users, items), _result(inputs, made), self.limits)


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


def drift_limits(request: run_pb2.ComputeFeaturesRequest) -> DriftLimits:
    """From when on a request wants drift to be told.

    Raises:
        InvalidFieldError: A limit is out of range, or for what there is not.
    """
    given = request.drift_limits
    params = feature_params(request)
    columns = {
        f"{table}.{name}" for table, grain in TABLES.items() for name in schema_of(grain, params).names
    }
    if unknown := [name for name in given.columns if name not in columns]:
        raise requests.invalid(
            "drift_limits.columns",
            f"Field drift_limits.columns names {unknown[0][:80]!r}; "
            f"expected a column such as {' or '.join(_near(unknown[0][:80], columns))}.",
        )
    if unknown := [name for name in given.baseline_versions if name not in TABLES]:
        raise requests.invalid(
            "drift_limits.baseline_versions",
            f"Field drift_limits.baseline_versions names {unknown[0][:80]!r}; "
            f"expected one of {', '.join(TABLES)}.",
        )
    return DriftLimits(
        given.l_infinity if given.HasField("l_infinity") else None,
        given.jensen_shannon if given.HasField("jensen_shannon") else None,
        dict(given.columns),
        dict(given.baseline_versions),
    )


def _near(name: str, columns: Collection[str]) -> list[str]:
    """The columns that somebody may mean, those of user_features first."""
    by_name: dict[str, list[str]] = {}
    for column in sorted(columns, reverse=True):
        by_name.setdefault(column.partition(".")[2], []).append(column)
    table, _, wanted = name.rpartition(".")
    near = requests.nearest(wanted, by_name)
    if near is None:
        return [EXAMPLE_COLUMN]
    return [column for column in by_name[near] if column == f"{table}.{near}"] or by_name[near]


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


def _job(services: Services, request: run_pb2.ComputeFeaturesRequest, inputs: RunInputs) -> FeaturesJob:
    users_key = tables.user_features_key(services.config, inputs.tenant)
    items_key = tables.item_features_key(services.config, inputs.tenant)
    params, limits = feature_params(request), drift_limits(request)
    return FeaturesJob(services.config, inputs, params, limits, users_key, items_key)


def _again(services: Services, snapshot: Snapshot, lineage: Lineage, inputs: RunInputs) -> FeaturesJob:
    """Both tables: neither can be had without the other."""
    users_key = tables.user_features_key(services.config, inputs.tenant)
    items_key = tables.item_features_key(services.config, inputs.tenant)
    params = lineage.params(FeatureParams)
    return FeaturesJob(services.config, inputs, params, DriftLimits(), users_key, items_key)


def _check(services: Services, request: run_pb2.ComputeFeaturesRequest) -> None:
    check_inputs(request)
    drift_limits(request)


def _written_out(request: run_pb2.ComputeFeaturesRequest) -> run_pb2.ComputeFeaturesRequest:
    params, written = feature_params(request), copy.deepcopy(request)
    written.windows[:] = params.windows
    written.weights.update(params.weights)
    written.half_life_days, written.smoothing = params.half_life_days, params.smoothing
    return written


def _filled(services: Services, request: run_pb2.ComputeFeaturesRequest) -> run_pb2.ComputeFeaturesRequest:
    return request  # No default is the server's.


def _result(inputs: RunInputs, made: FeatureTables[Any]) -> run_pb2.FeaturesResult:
    result = run_pb2.FeaturesResult(
        inputs=inputs.versions(), as_of=timestamp_message(inputs.as_of_us), interactions=made.interactions
    )
    unknown = made.unknown
    if unknown.interactions:
        warning = warning_of("UNKNOWN_ITEM", "item_id", unknown.interactions, unknown.samples)
        result.warnings.append(messages.warning_message(warning))
    return result


FEATURES = RunKind(
    "features",
    run_pb2.ComputeFeaturesRequest,
    run_pb2.ComputeFeaturesResponse,
    run_pb2.FeaturesResult,
    _check,
    _written_out,
    _filled,
    _job,
    _again,
)
