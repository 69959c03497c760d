"""VerifyTable: a version is derived again from its lineage and compared with what is stored.

It is work as a run's is: it waits for its turn among runs, and ends with its call.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.v1 import verification_pb2
from headrace_compute.delta import tables
from headrace_compute.errors import (
    HeadraceError,
    NoInteractionsError,
    NoPositivesError,
    PartLostError,
)
from headrace_compute.inputs.workers import admit_all
from headrace_compute.model import Snapshot, StoreConfig
from headrace_compute.proof.check import Checked, CheckSink
from headrace_compute.proof.difference import Difference
from headrace_compute.proof.run import prove
from headrace_compute.sink import NoSink, Sink
from headrace_server import __version__, metrics
from headrace_server.lineage import Lineage, read_lineage
from headrace_server.reading import open_by_name
from headrace_server.rpc import requests
from headrace_server.rpc.run_queue import Place
from headrace_server.runs.features import FEATURES
from headrace_server.runs.inputs import RunInputs, timestamp_message, version_message
from headrace_server.runs.job import Job, RunKind
from headrace_server.runs.live import LiveRun
from headrace_server.runs.negatives import NEGATIVES
from headrace_server.services import Services

MAKERS: Mapping[str, RunKind[Any]] = {
    "training_data": NEGATIVES,
    "user_features": FEATURES,
    "item_features": FEATURES,
    "dataset_users": NEGATIVES,
    "dataset_items": NEGATIVES,
}
"""The kind of run that writes a kind of table."""


async def verify(
    services: Services, request: verification_pb2.VerifyTableRequest, place: Place, live: LiveRun
) -> verification_pb2.VerifyTableResponse:
    """Verifies a version when its turn has come; which one that is, is fixed when it is asked for.

    Raises:
        TableNotFoundError, VersionNotFoundError: There is no such version.
        InvalidFieldError: The table is not one that runs write.
        NotDerivableError: This code cannot derive it.
        InputGoneError: What it was derived from is gone.
        PartLostError: A part of the version itself is.
    """
    version = request.version if request.HasField("version") else None
    snapshot = await _open(services, request.tenant_id, request.table, version)
    if not place.is_held:
        version = snapshot.version
        del snapshot
        await place.turn(live.queue)
        live.begin()
        snapshot = await _open(services, request.tenant_id, request.table, version)
    started = time.monotonic()
    lineage = await asyncio.to_thread(read_lineage, services.config, snapshot)
    inputs = await asyncio.to_thread(_pinned, services.config, request.tenant_id, lineage)
    again = MAKERS[snapshot.kind].again
    job = await asyncio.to_thread(again, services, snapshot, lineage, inputs)
    try:
        difference = await _difference(services, snapshot, job, live)
    except PartLostError as error:
        raise _named(error, services.config, live.tenant, lineage) from error
    if difference is not None and lineage.code_version != __version__:
        raise lineage.other_code(__version__)
    metrics.RUN_SECONDS.labels(live.kind).observe(time.monotonic() - started)
    return verification_pb2.VerifyTableResponse(
        version=version_message(snapshot),
        inputs=inputs.versions(),
        as_of=timestamp_message(inputs.as_of_us),
        code_version=lineage.code_version,
        difference=None if difference is None else _message(difference),
    )


async def _open(services: Services, tenant_id: str, table: str, version: int | None) -> Snapshot:
    tenant = requests.check_tenant(tenant_id)
    if not table:
        raise requests.invalid("table", "Field table is empty; name a table, as ListTables tells them.")
    snapshot = await open_by_name(services, tenant, table, version)
    if snapshot.kind not in MAKERS:
        raise requests.invalid(
            "table",
            f"Field table is {table!r}, which no run derives; expected user_features, item_features, a "
            "training set or a table of its ids.",
        )
    return snapshot


async def _difference(services: Services, snapshot: Snapshot, job: Job, live: LiveRun) -> Difference | None:
    executor = services.pool.run_executor(live.tenant, live.run_id)

    async def derive(sink: CheckSink) -> Sequence[Checked]:
        def sink_of(key: str) -> Sink[Checked]:
            return sink if key == snapshot.table_key else NoSink()

        try:
            made = await job.make(executor, sink_of, live.report, admit_all)
        except (NoInteractionsError, NoPositivesError):
            return ()  # Its inputs are not what they were: the first row that is stored should not be there.
        return next(table.parts for table in made.tables if table.key == snapshot.table_key)

    try:
        return await prove(executor, snapshot.kind, snapshot.files, derive, live.report)
    finally:
        # The place among runs is held for as long as workers are busy with it.
        await asyncio.shield(executor.ended())


def _pinned(config: StoreConfig, tenant: str, lineage: Lineage) -> RunInputs:
    """The inputs that a version was derived from. Blocks.

    Raises:
        InputGoneError: The log lacks one.
    """
    interactions = lineage.open_input(config, tenant, "interactions", lineage.interactions_version)
    items = None
    if lineage.items_version is not None:
        items = lineage.open_input(config, tenant, "items", lineage.items_version)
    return RunInputs(tenant, interactions, items, lineage.as_of_us)


def _named(error: PartLostError, config: StoreConfig, tenant: str, lineage: Lineage) -> HeadraceError:
    """What it means that a part is gone, by the table that has it."""
    part = error.attributes.get("part", "")
    for name, version in lineage.inputs.items():
        if part.startswith(f"{tables.table_key(config, tenant, name)}/"):
            return lineage.gone(name, version, part)
    return lineage.lost(part)


def _message(difference: Difference) -> verification_pb2.RowDifference:
    return verification_pb2.RowDifference(
        bucket=difference.section.bucket,
        split=difference.section.split,
        row=difference.row,
        stored=difference.is_stored,
        derived=difference.is_derived,
        key=difference.key,
        values=(
            verification_pb2.ValueDifference(column=each.column, stored=each.stored, derived=each.derived)
            for each in difference.values
        ),
    )
