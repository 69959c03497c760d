"""A job: what a run is to make, by its kind, and what it made.

A kind knows its messages and how to make a job of a request; how jobs are run, and what becomes of a run that
dies, is the same for all (`service.py`).
"""

import base64
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

import pyarrow as pa
from google.protobuf import json_format

from headrace.v1 import run_pb2
from headrace_compute.ingest.block_result import part_from_json
from headrace_compute.inputs.workers import Admit, Progress
from headrace_compute.model import Kind, Part, Shard, Snapshot
from headrace_compute.sink import Sink, W
from headrace_compute.statistics.drift import DriftLimits
from headrace_compute.workers.pool import RunExecutor
from headrace_server.lineage import Lineage
from headrace_server.runs.inputs import RunInputs, RunRequest, version_message
from headrace_server.services import Services

RunResult: TypeAlias = run_pb2.FeaturesResult | run_pb2.NegativesResult
Response = TypeVar("Response", run_pb2.ComputeFeaturesResponse, run_pb2.SampleNegativesResponse)


@dataclass(frozen=True)
class MadeTable(Generic[W]):
    """A table as a job made it.

    Attributes:
        parts: What became of its rows; of a run, what is to be the newest version of the table.
        statistics: Of their columns, as JSON; empty if there are none.
    """

    key: str
    kind: Kind
    schema: pa.Schema
    parts: tuple[W, ...]
    statistics: str = ""


@dataclass(frozen=True)
class Made(Generic[W]):
    """What a job made.

    Attributes:
        tables: In the order of their commits.
        result: What is told of it; the versions written are filled in when there are any.
        limits: When it is to warn of drift.
        lineage: Commit metadata that only its making could tell.
    """

    tables: tuple[MadeTable[W], ...]
    result: RunResult
    limits: DriftLimits = field(default_factory=DriftLimits)
    lineage: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_statistics(self) -> bool:
        """Whether its tables have."""
        return any(table.statistics for table in self.tables)

    def committed(self, outputs: list[Snapshot]) -> RunResult:
        """The whole result but for drift, once its tables are committed."""
        return with_outputs(self.result, outputs)


class Job(Protocol):
    """What a run is to make, from pinned inputs."""

    @property
    def inputs(self) -> RunInputs:
        """What it reads."""

    @property
    def outputs(self) -> Mapping[str, Kind]:
        """Kind of what it writes by the key of the table."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Its other parameters, for the lineage."""

    @property
    def shards(self) -> Sequence[Shard]:
        """The plan it reads by; it follows from inputs and parameters, so equal ones give equal files."""

    async def make(
        self, executor: RunExecutor, sink: Callable[[str], Sink[W]], report: Progress, admit: Admit
    ) -> Made[W]:
        """Makes the tables; committing what their sinks wrote is the caller's.

        Args:
            sink: Where the rows of a table go, by its key.
        """


@dataclass(frozen=True)
class RunKind(Generic[Response]):
    """A kind of run.

    Attributes:
        check: Raises what is wrong with a request, before anything is done for it.
        written_out: A request that names the defaults that no server may change: equal ones ask for the same.
        filled: A request that names the defaults of this server, so that another one makes the same of it.
        job: Makes a job of a request and its pinned inputs.
        again: Makes a job that derives a version again from its lineage and its inputs; it may block.
    """

    name: Literal["features", "negatives"]
    request: type[RunRequest]
    response: type[Response]
    result: type[RunResult]
    check: Callable[[Services, Any], None]
    written_out: Callable[[Any], RunRequest]
    filled: Callable[[Services, Any], RunRequest]
    job: Callable[[Services, Any, RunInputs], Job]
    again: Callable[[Services, Snapshot, Lineage, RunInputs], Job]


def with_outputs(result: RunResult, outputs: list[Snapshot]) -> RunResult:
    """A result with the versions that were written."""
    whole = copy.deepcopy(result)
    versions = [version_message(output) for output in outputs]
    if isinstance(whole, run_pb2.FeaturesResult):
        whole.outputs.extend(versions)
    else:
        *ids, output = versions
        whole.output.CopyFrom(output)
        if ids:
            whole.users.CopyFrom(ids[0])
            whole.items.CopyFrom(ids[1])
    return whole


def outputs_of(result: RunResult) -> list[run_pb2.TableVersion]:
    """The versions that a result says were written."""
    return list(result.outputs) if isinstance(result, run_pb2.FeaturesResult) else [result.output]


def lineage_of(job: Job, made: Made[Part]) -> dict[str, str]:
    """Commit metadata that says how to derive what a job made again."""
    return {**job.inputs.lineage(job.parameters, job.shards), **made.lineage}


def made_to_json(made: Made[Part]) -> dict[str, Any]:
    """What a job made, for the journal of its run."""
    return {
        "tables": [
            {
                "key": table.key,
                "kind": table.kind,
                "schema": base64.b64encode(table.schema.serialize()).decode(),
                "parts": [asdict(part) for part in table.parts],
                "statistics": table.statistics,
            }
            for table in made.tables
        ],
        "result": json_format.MessageToDict(made.result, preserving_proto_field_name=True),
        "limits": asdict(made.limits),
    }


def made_from_json(kind: RunKind[Any], found: Mapping[str, Any]) -> Made[Part]:
    """What a job of a kind made, from the journal of its run."""
    tables = (
        MadeTable(
            table["key"],
            table["kind"],
            pa.ipc.read_schema(pa.py_buffer(base64.b64decode(table["schema"]))),
            tuple(map(part_from_json, table["parts"])),
            table.get("statistics", ""),  # 0.2.0 had none, nor limits.
        )
        for table in found["tables"]
    )
    result = json_format.ParseDict(found["result"], kind.result())
    return Made(tuple(tables), result, DriftLimits(**found.get("limits", {})))
