"""The statistics of features, and their drift.

A version's statistics are part of the commit that makes it visible, so the one is never there without the
other, and they are told from there. The table feature_statistics, for whoever reads tables, has them a second
time: its commit follows the run's, and whoever clears what a dead run left makes it if the run did not.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from headrace.v1 import statistics_pb2, validation_pb2
from headrace_compute.delta import tables
from headrace_compute.errors import StatisticsNotFoundError, VersionNotFoundError
from headrace_compute.features.feature import TABLES
from headrace_compute.model import Snapshot, StoreConfig
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part
from headrace_compute.statistics.drift import ColumnDrift, DriftLimits, table_drift
from headrace_compute.statistics.summary import PROBABILITIES, ColumnStatistics, TableStatistics, from_json
from headrace_compute.statistics.table import SCHEMA, statistics_rows
from headrace_server import __version__, metrics
from headrace_server.reading import open_by_name
from headrace_server.rpc import requests
from headrace_server.runs.inputs import timestamp_message, version_message
from headrace_server.services import Services, TableCommit


@dataclass(frozen=True)
class Compared:
    """A version of a table beside another one.

    Attributes:
        baseline: The other version; None if there is nothing to compare with.
        drift: Of each column that both have.
    """

    statistics: TableStatistics
    baseline: Snapshot | None
    drift: tuple[ColumnDrift, ...]


async def record(services: Services, tenant: str, run_id: str, outputs: Sequence[Snapshot]) -> None:
    """Adds the statistics of what a run committed to feature_statistics, unless they are there."""
    versions = {output.table_key: output.version for output in outputs}
    commit = await asyncio.to_thread(recording, services.config, tenant, run_id, versions)
    if commit is not None:
        await services.commit(tenant, commit)


def recording(
    config: StoreConfig, tenant: str, run_id: str, versions: Mapping[str, int]
) -> TableCommit | None:
    """The commit that adds the statistics of what a run committed, whose part is written here.

    Whoever makes it makes the same, so it may be made again. Blocks.

    Args:
        versions: The versions that the run committed, by the keys of their tables.

    Returns:
        None if nothing is to be added, or all of it has been.
    """
    found = {key: tables.statistics_at(config, key, version) for key, version in versions.items()}
    rows = [
        statistics_rows(tables.table_name(key), versions[key], from_json(text))
        for key, text in found.items()
        if text is not None
    ]
    table_key, transaction = tables.feature_statistics_key(config, tenant), f"{run_id}/feature_statistics"
    if not rows or tables.find_commit(config, table_key, transaction) is not None:
        return None
    # Other versions of the code may write the same rows in other bytes.
    part_key = f"{table_key}/{run_id}-{__version__}.parquet"
    part = write_part(open_store(config), part_key, pa.concat_tables(rows))
    metadata = {"headrace.run_id": run_id, "headrace.code_version": __version__}
    return TableCommit(table_key, "feature_statistics", SCHEMA, (part,), transaction, metadata)


def check_baselines(config: StoreConfig, tenant: str, limits: DriftLimits) -> None:
    """Looks whether there are the versions that a run is to be compared with. Blocks.

    Raises:
        TableNotFoundError, VersionNotFoundError: There is none.
        StatisticsNotFoundError: It has no statistics.
    """
    for name, version in limits.baselines.items():
        _statistics(config, _open_baseline(config, tables.table_key(config, tenant, name), version))


async def drift_warnings(
    services: Services, limits: DriftLimits, outputs: Iterable[Snapshot]
) -> list[validation_pb2.Warning]:
    """Counts how far what a run committed has drifted, and warns of what is beyond the limits."""
    warnings = []
    for output in outputs:
        name = tables.table_name(output.table_key)
        baseline = limits.baselines.get(name)
        found = await asyncio.to_thread(_compared, services.config, output, baseline)
        for drift in found.drift:
            metrics.DRIFT.labels(name, drift.distance).observe(drift.value)
            limit = limits.of(name, drift)
            if found.baseline is not None and limit is not None and drift.value > limit:
                metrics.DRIFT_WARNINGS.labels(name).inc()
                warnings.append(warning(output, found.baseline, drift, limit))
    return warnings


async def get_statistics(
    services: Services, request: statistics_pb2.GetFeatureStatisticsRequest
) -> statistics_pb2.GetFeatureStatisticsResponse:
    """Serves GetFeatureStatistics.

    Raises:
        InvalidFieldError: The table is none of features.
        TableNotFoundError, VersionNotFoundError: There is no such version, or none to compare with.
        StatisticsNotFoundError: One of the two has no statistics.
    """
    tenant = requests.check_tenant(request.tenant_id)
    if request.table not in TABLES:
        raise requests.invalid(
            "table", f"Field table is {request.table[:80]!r}; expected one of {', '.join(TABLES)}."
        )
    version = request.version if request.HasField("version") else None
    baseline = request.baseline_version if request.HasField("baseline_version") else None
    snapshot = await open_by_name(services, tenant, request.table, version)
    found = await asyncio.to_thread(_compared, services.config, snapshot, baseline)
    return statistics_pb2.GetFeatureStatisticsResponse(
        version=version_message(snapshot),
        as_of=timestamp_message(found.statistics.as_of_us),
        columns=map(_column_message, found.statistics.columns),
        baseline=None if found.baseline is None else version_message(found.baseline),
        drift=map(_drift_message, found.drift),
    )


def _compared(config: StoreConfig, output: Snapshot, baseline: int | None) -> Compared:
    """A version beside another one: the one before, if none is named and that has statistics."""
    statistics = _statistics(config, output)
    if baseline is None:
        baseline = output.version - 1
        if baseline < 1 or tables.statistics_at(config, output.table_key, baseline) is None:
            return Compared(statistics, None, ())
    other = _open_baseline(config, output.table_key, baseline)
    return Compared(statistics, other, tuple(table_drift(_statistics(config, other), statistics)))


def _open_baseline(config: StoreConfig, table_key: str, version: int) -> Snapshot:
    try:
        return tables.open_table(config, table_key, version)
    except VersionNotFoundError as error:
        raise VersionNotFoundError(
            f"Table {tables.table_name(table_key)!r} has no version {version} that could be the baseline; "
            f"the newest is {error.attributes['newest']}.",
            error.attributes,
        ) from None


def _statistics(config: StoreConfig, snapshot: Snapshot) -> TableStatistics:
    found = tables.statistics_at(config, snapshot.table_key, snapshot.version)
    if found is None:
        raise StatisticsNotFoundError.of(tables.table_name(snapshot.table_key), snapshot.version)
    return from_json(found)


def warning(output: Snapshot, baseline: Snapshot, drift: ColumnDrift, limit: float) -> validation_pb2.Warning:
    """The warning of a column that has drifted further than its limit."""
    column = f"{tables.table_name(output.table_key)}.{drift.column}"
    value, most = _apart(drift.value, limit)
    distance = {"l_infinity": "L-infinity distance", "jensen_shannon": "Jensen-Shannon divergence"}
    return validation_pb2.Warning(
        code="DRIFT",
        column=column,
        count=output.rows,
        message=(
            f"{column} has drifted from version {baseline.version}: the {distance[drift.distance]} is "
            f"{value}, and {most} is the limit; GetFeatureStatistics shows both versions."
        ),
    )


def _apart(value: float, limit: float) -> tuple[str, str]:
    """A value and the smaller limit, with as many digits as it takes to see that, and four at least."""
    told = ((f"{value:.{digits}g}", f"{limit:.{digits}g}") for digits in range(4, 17))
    return next((pair for pair in told if float(pair[0]) > float(pair[1])), (repr(value), repr(limit)))


def _column_message(column: ColumnStatistics) -> statistics_pb2.ColumnStatistics:
    message = statistics_pb2.ColumnStatistics(
        column=column.name,
        type=column.type,
        measure=column.measure,
        count=column.count,
        nulls=column.nulls,
        distinct=column.distinct,
        distinct_error=column.distinct_error,
        mean=column.mean,
        stddev=column.stddev,
        minimum=column.minimum,
        maximum=column.maximum,
        quantile_error=column.quantile_error,
        values_total=column.values_total,
    )
    for probability, value in zip(PROBABILITIES, column.quantiles, strict=False):
        message.quantiles.add(probability=probability, value=value)
    for lower, upper, count in column.histogram:
        message.histogram.add(lower=lower, upper=upper, count=count)
    for text, count in column.top_values:
        message.top_values.add(value=text, count=count)
    return message


def _drift_message(drift: ColumnDrift) -> statistics_pb2.ColumnDrift:
    return statistics_pb2.ColumnDrift(
        column=drift.column, distance=drift.distance, value=drift.value, error=drift.error
    )
