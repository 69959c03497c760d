"""SampleNegatives: a training set of a tenant, from pinned inputs."""

import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass

from headrace.v1 import run_pb2
from headrace_compute.columns import INTERACTION_TYPES
from headrace_compute.delta import tables
from headrace_compute.errors import UnsupportedError
from headrace_compute.inputs.catalog import current_catalog
from headrace_compute.model import Snapshot
from headrace_compute.pool import RunExecutor
from headrace_compute.training.negatives import TRAINING_SCHEMA, SamplingParams
from headrace_compute.training.run import Dataset, make_dataset
from headrace_server import metrics
from headrace_server.rpc import requests
from headrace_server.runs.inputs import RunInputs, pin_inputs, timestamp_message, version_message
from headrace_server.runs.outputs import row_messages
from headrace_server.runs.progress import Reported
from headrace_server.runs.run import begun
from headrace_server.services import Services
from headrace_server.settings import Settings

DEFAULT_DATASET = "training_data"
MAX_RATIO = 1_000
MAX_ALPHA = 4.0
STRATEGIES = ("uniform", "popularity")
LATER_STRATEGIES = ("zipf", "mixed", "exposed")


@dataclass(frozen=True)
class NegativesRun:
    """What a sampling run committed."""

    output: Snapshot
    made: Dataset


async def sample_negatives(
    services: Services, request: run_pb2.SampleNegativesRequest
) -> AsyncIterator[run_pb2.SampleNegativesResponse]:
    """Serves one SampleNegatives call; the client's going away cancels the run."""
    started = time.monotonic()
    params = sampling_params(request, services.settings)
    tenant = requests.check_tenant(request.tenant_id)
    key = tables.dataset_key(services.config, tenant, request.dataset or DEFAULT_DATASET)
    with services.runs.enter(tenant):
        executor = services.pool.run_executor(tenant, uuid.uuid4().hex)
        inputs = await pin_inputs(services, executor, request)
        run = Reported(lambda report: _run(services, executor, inputs, key, params, report))
        async for progress in run.progress():
            yield run_pb2.SampleNegativesResponse(progress=progress)
    if request.include_rows:
        async for rows in row_messages(services, run.result.output):
            yield run_pb2.SampleNegativesResponse(rows=rows)
    metrics.RUN_SECONDS.labels("negatives").observe(time.monotonic() - started)
    yield run_pb2.SampleNegativesResponse(result=_result(inputs, run.result))


def sampling_params(request: run_pb2.SampleNegativesRequest, settings: Settings) -> SamplingParams:
    """A request's parameters, with the server's defaults for those it leaves out.

    Raises:
        InvalidFieldError: A value is out of range.
        UnsupportedError: A strategy that this version lacks.
    """
    strategy = request.strategy or "popularity"
    if strategy in LATER_STRATEGIES:
        raise UnsupportedError(
            f"Strategy {strategy} is not implemented in this version; use {' or '.join(STRATEGIES)}.",
            {"feature": f"strategy {strategy}"},
        )
    if strategy not in STRATEGIES:
        names = ", ".join((*STRATEGIES, *LATER_STRATEGIES))
        raise requests.invalid("strategy", f"Field strategy is {strategy[:80]!r}; it must be one of {names}.")
    ratio = request.negative_ratio if request.HasField("negative_ratio") else settings.negative_sampling_ratio
    if not 1 <= ratio <= MAX_RATIO:
        raise requests.invalid(
            "negative_ratio", f"Field negative_ratio is {ratio}; it must be 1 to {MAX_RATIO:,}."
        )
    alpha = request.alpha if request.HasField("alpha") else SamplingParams.alpha
    if not 0.0 <= alpha <= MAX_ALPHA:
        raise requests.invalid("alpha", f"Field alpha is {alpha}; it must be 0.0 to {MAX_ALPHA}.")
    types = tuple(request.positive_interaction_types) or SamplingParams.positive_types
    if unknown := [name for name in types if name not in INTERACTION_TYPES]:
        raise requests.invalid(
            "positive_interaction_types",
            f"Unknown interaction type {unknown[0][:80]!r}; expected one of {', '.join(INTERACTION_TYPES)}.",
        )

    def setting(name: str) -> int:
        return int(getattr(request, name) if request.HasField(name) else getattr(settings, name))  # type: ignore[arg-type]

    return SamplingParams(
        seed=request.seed,
        negative_ratio=ratio,
        strategy="uniform" if strategy == "uniform" else "popularity",
        alpha=alpha,
        positive_types=tuple(sorted(set(types))),
        max_interactions_per_user=setting("max_interactions_per_user"),
        min_interactions_per_user=setting("min_interactions_per_user"),
        min_interactions_per_item=setting("min_interactions_per_item"),
    )


async def _run(
    services: Services,
    executor: RunExecutor,
    inputs: RunInputs,
    key: str,
    params: SamplingParams,
    report: Callable[[str, int, int], None],
) -> NegativesRun:
    async with begun(services, executor, inputs.tenant, {key: "training_data"}) as run:
        catalog = await executor.hold(current_catalog, inputs.items.files) if inputs.items else None
        made = await make_dataset(
            executor,
            inputs.interactions.files,
            catalog,
            inputs.shards,
            inputs.as_of_us,
            params,
            run.part_prefix(key),
            report,
            run.admit,
        )
        report("commit", 0, 1)
        lineage = inputs.lineage(services, asdict(params))
        output = await run.commit(key, TRAINING_SCHEMA, made.parts, lineage)
        report("commit", 1, 1)
    return NegativesRun(output, made)


def _result(inputs: RunInputs, run: NegativesRun) -> run_pb2.NegativesResult:
    made = run.made
    return run_pb2.NegativesResult(
        inputs=inputs.versions(),
        output=version_message(run.output),
        as_of=timestamp_message(inputs.as_of_us),
        source_pairs=made.source_pairs,
        core_pairs=made.core_pairs,
        core_users=made.core_users,
        core_items=made.core_items,
        positives=made.positives,
        positives_outside_candidates=made.positives_outside_candidates,
        negatives=made.negatives,
        negatives_short=made.negatives_short,
        candidates=made.candidates,
    )
