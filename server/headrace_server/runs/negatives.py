"""SampleNegatives: a training set of a tenant, from pinned inputs."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from headrace.v1 import run_pb2, validation_pb2
from headrace_compute.delta import tables
from headrace_compute.inputs.catalog import current_catalog
from headrace_compute.inputs.workers import Admit, Progress
from headrace_compute.model import Kind, Shard, Snapshot
from headrace_compute.sink import Sink, W
from headrace_compute.training.dataset import Dataset
from headrace_compute.training.ids import ids_schema
from headrace_compute.training.numbered import IdTables
from headrace_compute.training.pairs import VIEW
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.plan import sampling_plan
from headrace_compute.training.run import make_dataset
from headrace_compute.training.schema import schema_of
from headrace_compute.training.strategies import STRATEGIES, Parameter
from headrace_compute.training.vocabulary import Entity
from headrace_compute.workers.pool import RunExecutor
from headrace_server.lineage import Lineage
from headrace_server.rpc import requests
from headrace_server.runs.inputs import RunInputs, check_inputs, timestamp_message, version_message
from headrace_server.runs.job import Made, MadeTable, RunKind
from headrace_server.runs.row_columns import (
    history_types,
    requested_columns,
    requested_features,
    requested_history,
)
from headrace_server.runs.splits import check_cuts, requested_split, split_results, split_warnings
from headrace_server.runs.vocabularies import (
    KINDS,
    GrowingVocabularies,
    PinnedVocabularies,
    vocabulary_lineage,
)
from headrace_server.services import Services
from headrace_server.settings import Settings

DEFAULT_DATASET = "training_data"
MAX_RATIO = 1_000
MAX_EXPONENT = 4.0
MAX_NAME = 63
"""Characters of a training set's name at most."""


@dataclass(frozen=True)
class NegativesJob:
    """A training set.

    Attributes:
        key: Of its table.
        vocabularies: The versions that its ids have their indices from, if they were pinned.
    """

    services: Services
    inputs: RunInputs
    key: str
    params: SamplingParams
    vocabularies: Mapping[Entity, Snapshot] | None = None

    @property
    def outputs(self) -> Mapping[str, Kind]:
        """The table; before it those of its users and items, if ids get indices."""
        ids: dict[str, Kind] = {users_key(self.key): "dataset_users", items_key(self.key): "dataset_items"}
        return {**(ids if self.params.with_indices else {}), self.key: "training_data"}

    @property
    def parameters(self) -> Mapping[str, Any]:
        """How it samples."""
        return asdict(self.params)

    @property
    def shards(self) -> Sequence[Shard]:
        """The more of them, the more is made of an event."""
        return sampling_plan(self.inputs.interactions.rows, self.params)

    async def make(
        self, executor: RunExecutor, sink: Callable[[str], Sink[W]], report: Progress, admit: Admit
    ) -> Made[W]:
        """Makes the training set."""
        inputs, ids = self.inputs, None
        vocabularies = self._vocabularies(executor)
        if self.params.with_indices:
            ids = IdTables(vocabularies, sink(users_key(self.key)), sink(items_key(self.key)))
        catalog = await executor.hold(current_catalog, inputs.items.files) if inputs.items else None
        made = await make_dataset(
            executor,
            inputs.interactions.files,
            catalog,
            self.shards,
            inputs.as_of_us,
            self.params,
            sink(self.key),
            report,
            admit,
            ids,
        )
        tables_of_ids = (
            MadeTable(users_key(self.key), "dataset_users", ids_schema("user"), made.users),
            MadeTable(items_key(self.key), "dataset_items", ids_schema("item"), made.items),
        )
        table = MadeTable(self.key, "training_data", schema_of(self.params), made.parts)
        # What is committed last makes the others worth looking for.
        made_tables = (*(tables_of_ids if ids else ()), table)
        result = _result(inputs, self.params, made)
        for entity, used in vocabularies.used.items():
            getattr(result, f"{entity}_vocabulary").CopyFrom(version_message(used))
        return Made(made_tables, result, lineage=vocabulary_lineage(vocabularies.used))

    def _vocabularies(self, executor: RunExecutor) -> GrowingVocabularies | PinnedVocabularies:
        if self.vocabularies is not None:
            return PinnedVocabularies(executor, self.vocabularies)
        return GrowingVocabularies(self.services, executor, self.inputs.tenant)


def users_key(dataset_key: str) -> str:
    """The key of the table of a training set's users."""
    return f"{dataset_key}_users"


def items_key(dataset_key: str) -> str:
    """The key of the table of a training set's items."""
    return f"{dataset_key}_items"


def sampling_params(request: run_pb2.SampleNegativesRequest, settings: Settings) -> SamplingParams:
    """A request's parameters, with the server's defaults for those it leaves out.

    Raises:
        InvalidFieldError: A value is out of range.
    """
    ratio = request.negative_ratio if request.HasField("negative_ratio") else settings.negative_sampling_ratio

    def setting(name: str) -> int:
        return int(getattr(request, name) if request.HasField(name) else getattr(settings, name))  # type: ignore[arg-type]

    types = _positive_types(request)
    return SamplingParams(
        seed=request.seed,
        negative_ratio=_ratio("negative_ratio", ratio),
        strategy=_strategy(request, types),
        alpha=_number(request, "alpha", MAX_EXPONENT),
        zipf_exponent=_number(request, "zipf_exponent", MAX_EXPONENT),
        uniform_share=_number(request, "uniform_share", 1.0),
        available_only=request.available_only,
        same_category_share=_number(request, "same_category_share", 1.0),
        positive_types=types,
        max_interactions_per_user=setting("max_interactions_per_user"),
        min_interactions_per_user=setting("min_interactions_per_user"),
        min_interactions_per_item=setting("min_interactions_per_item"),
        split=requested_split(request),
        eval_negative_ratio=_eval_ratio(request),
        with_features=requested_features(request),
        feature_columns=requested_columns(request),
        history=requested_history(request),
        history_types=history_types(request),
        history_timestamps=request.history_timestamps,
        with_indices=request.with_indices,
    )


def _eval_ratio(request: run_pb2.SampleNegativesRequest) -> int | None:
    if not request.HasField("eval_negative_ratio"):
        return None
    if not request.HasField("split"):
        raise requests.invalid(
            "eval_negative_ratio", "Field eval_negative_ratio is for valid and test; give split as well."
        )
    return _ratio("eval_negative_ratio", request.eval_negative_ratio)


def _ratio(field: str, ratio: int) -> int:
    if not 1 <= ratio <= MAX_RATIO:
        raise requests.invalid(field, f"Field {field} is {ratio}; it must be 1 to {MAX_RATIO:,}.")
    return ratio


def _positive_types(request: run_pb2.SampleNegativesRequest) -> tuple[str, ...]:
    types = request.positive_interaction_types or SamplingParams.positive_types
    return requests.check_types("positive_interaction_types", types)


def _strategy(request: run_pb2.SampleNegativesRequest, positive_types: Sequence[str]) -> str:
    strategy = request.strategy or SamplingParams.strategy
    if strategy not in STRATEGIES:
        raise requests.invalid(
            "strategy", f"Field strategy is {strategy[:80]!r}; expected one of {', '.join(STRATEGIES)}."
        )
    if STRATEGIES[strategy].exposed and VIEW in positive_types:
        raise requests.invalid(
            "positive_interaction_types",
            f"Strategy {strategy} draws what a user has only viewed, and {VIEW} makes a positive; "
            "leave it out of positive_interaction_types, or choose another strategy.",
        )
    return strategy


def _check_heeded(request: run_pb2.SampleNegativesRequest, strategy: str) -> None:
    """Refuses a parameter that the strategy would not heed, unless it has its default."""
    for name in get_args(Parameter):
        others = [other for other, each in STRATEGIES.items() if name in each.parameters]
        is_given = request.HasField(name) and getattr(request, name) != getattr(SamplingParams, name)
        if is_given and strategy not in others:
            raise requests.invalid(
                name,
                f"Field {name} is {getattr(request, name)}, which strategy {strategy} does not heed; "
                f"leave it out, or choose {' or '.join(others)}.",
            )


def _number(
    request: run_pb2.SampleNegativesRequest,
    name: Literal["alpha", "zipf_exponent", "uniform_share", "same_category_share"],
    most: float,
) -> float:
    value: float = getattr(request if request.HasField(name) else SamplingParams, name)
    if not 0.0 <= value <= most:
        raise requests.invalid(name, f"Field {name} is {value}; it must be 0.0 to {most}.")
    return value


def _job(services: Services, request: run_pb2.SampleNegativesRequest, inputs: RunInputs) -> NegativesJob:
    key = tables.dataset_key(services.config, inputs.tenant, request.dataset or DEFAULT_DATASET)
    params = sampling_params(request, services.settings)
    check_cuts(params.split, inputs.as_of_us)
    return NegativesJob(services, inputs, key, params)


def _again(services: Services, snapshot: Snapshot, lineage: Lineage, inputs: RunInputs) -> NegativesJob:
    """The whole of a training set, also for the table of its users or items."""
    params = lineage.params(SamplingParams)
    if params.strategy not in STRATEGIES:
        raise lineage.not_derivable(f"strategy = {params.strategy}")
    key = snapshot.table_key
    if snapshot.kind != "training_data":
        key = key.rpartition("_")[0]
    config, tenant = services.config, inputs.tenant
    used = (
        {entity: lineage.open_vocabulary(config, tenant, entity) for entity in KINDS}
        if params.with_indices
        else None
    )
    return NegativesJob(services, inputs, key, params, used)


def _check(services: Services, request: run_pb2.SampleNegativesRequest) -> None:
    params = sampling_params(request, services.settings)
    # Here and not above: what an older server took goes on.
    _check_heeded(request, params.strategy)
    check_inputs(request)
    if request.HasField("as_of"):
        check_cuts(params.split, requests.instant_us("as_of", request.as_of))
    key = tables.dataset_key(services.config, request.tenant_id, request.dataset or DEFAULT_DATASET)
    longest = MAX_NAME - len(users_key("")) if request.with_indices else MAX_NAME
    if len(tables.table_name(key)) > longest:
        raise requests.invalid(
            "dataset",
            f"Field dataset is {request.dataset!r}; with_indices takes at most {longest} characters, "
            "as two tables are called by it with _users and _items behind.",
        )


def _written_out(request: run_pb2.SampleNegativesRequest) -> run_pb2.SampleNegativesRequest:
    written = copy.deepcopy(request)
    written.dataset = request.dataset or DEFAULT_DATASET
    types = _positive_types(request)
    written.positive_interaction_types[:] = types
    written.history_interaction_types[:] = history_types(request)
    written.strategy = _strategy(request, types)
    written.alpha = _number(request, "alpha", MAX_EXPONENT)
    written.zipf_exponent = _number(request, "zipf_exponent", MAX_EXPONENT)
    written.uniform_share = _number(request, "uniform_share", 1.0)
    written.same_category_share = _number(request, "same_category_share", 1.0)
    return written


def _filled(services: Services, request: run_pb2.SampleNegativesRequest) -> run_pb2.SampleNegativesRequest:
    params = sampling_params(request, services.settings)
    filled = run_pb2.SampleNegativesRequest()
    filled.CopyFrom(request)
    filled.negative_ratio = params.negative_ratio
    filled.max_interactions_per_user = params.max_interactions_per_user
    filled.min_interactions_per_user = params.min_interactions_per_user
    filled.min_interactions_per_item = params.min_interactions_per_item
    return filled


def _result(inputs: RunInputs, params: SamplingParams, made: Dataset[Any]) -> run_pb2.NegativesResult:
    return run_pb2.NegativesResult(
        inputs=inputs.versions(),
        as_of=timestamp_message(inputs.as_of_us),
        source_pairs=made.source_pairs,
        core_pairs=made.core_pairs,
        core_users=made.core_users,
        core_items=made.core_items,
        candidates=made.candidates,
        positives=sum(split.positives for split in made.splits),
        positives_outside_candidates=sum(split.positives_outside_candidates for split in made.splits),
        negatives=sum(split.negatives for split in made.splits),
        negatives_short=sum(split.negatives_short for split in made.splits),
        splits=split_results(made),
        warnings=[*split_warnings(params, made), *_category_warnings(made)],
    )


def _category_warnings(made: Dataset[Any]) -> Iterator[validation_pb2.Warning]:
    unknown = sum(split.positives_without_category for split in made.splits)
    if unknown:
        positives = sum(split.positives for split in made.splits)
        yield validation_pb2.Warning(
            code="UNKNOWN_CATEGORY",
            column="category",
            message=f"Of {positives} positives {unknown} have an item whose category no catalog row says; "
            "all of their negatives are drawn from all candidates. Upload items with their categories.",
        )


NEGATIVES = RunKind(
    "negatives",
    run_pb2.SampleNegativesRequest,
    run_pb2.SampleNegativesResponse,
    run_pb2.NegativesResult,
    _check,
    _written_out,
    _filled,
    _job,
    _again,
)
