"""Splits of a training set: what is asked for, and what is told of them."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from headrace.v1 import run_pb2, validation_pb2
from headrace_compute.report import iso_time
from headrace_compute.training.dataset import Dataset, SplitRows
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.split import LEAVE_LAST_OUT, TEMPORAL, Split
from headrace_server.rpc import requests
from headrace_server.runs.inputs import timestamp_message

CUTS, FRACTIONS = "split.temporal.cuts", "split.temporal.fractions"


def requested_split(request: run_pb2.SampleNegativesRequest) -> Split | None:
    """The split that a request asks for.

    Raises:
        InvalidFieldError: It is none.
    """
    if not request.HasField("split"):
        return None
    match request.split.WhichOneof("split"):
        case "leave_last_out":
            return Split(LEAVE_LAST_OUT)
        case "temporal":
            return _temporal(request.split.temporal)
    raise requests.invalid("split", "Field split is empty; give temporal or leave_last_out.")


def _temporal(asked: run_pb2.TemporalSplit) -> Split:
    cuts_us = tuple(requests.instant_us(CUTS, cut) for cut in asked.cuts)
    fractions = tuple(asked.fractions)
    if bool(cuts_us) == bool(fractions):
        raise requests.invalid(
            "split.temporal", "Field split.temporal must have either cuts or fractions, one or two of them."
        )
    for fraction in fractions:
        if not 0.0 < fraction < 1.0:
            raise requests.invalid(
                FRACTIONS, f"Field {FRACTIONS} has {fraction}; fractions lie between 0.0 and 1.0, exclusive."
            )
    _check_order(CUTS, cuts_us)
    _check_order(FRACTIONS, fractions)
    return Split(TEMPORAL, cuts_us, fractions)


def _check_order(field: str, values: Sequence[float]) -> None:
    if len(values) > 2:
        raise requests.invalid(field, f"Field {field} has {len(values)} values; one or two divide a set.")
    if any(after <= before for before, after in itertools.pairwise(values)):
        raise requests.invalid(field, f"Field {field} does not ascend; give the earlier value first.")


def check_cuts(split: Split | None, as_of_us: int) -> None:
    """Checks that something can be behind each cut.

    Raises:
        InvalidFieldError: A cut is not before the end of the source.
    """
    for cut_us in split.cuts_us if split else ():
        if cut_us >= as_of_us:
            raise requests.invalid(
                CUTS,
                f"Field {CUTS} has {iso_time(cut_us)}, which is not before as_of = {iso_time(as_of_us)}: "
                "nothing would be behind it. Choose an earlier cut.",
            )


def split_results(made: Dataset[Any]) -> list[run_pb2.SplitResult]:
    """What is told of each split; nothing without one."""
    starts = {split.name: cut for split, cut in zip(made.splits[1:], made.cuts_us, strict=False)}
    return [
        run_pb2.SplitResult(
            name=split.name,
            start=timestamp_message(starts[split.name]) if split.name in starts else None,
            positives=split.positives,
            positives_outside_candidates=split.positives_outside_candidates,
            negatives=split.negatives,
            negatives_short=split.negatives_short,
            positives_without_user=split.positives_without_user,
            positives_without_item=split.positives_without_item,
        )
        for split in made.splits
        if split.name is not None
    ]


def split_warnings(params: SamplingParams, made: Dataset[Any]) -> Iterator[validation_pb2.Warning]:
    """What whoever trusts a measurement on these splits should know."""
    if params.split is not None and params.split.kind == LEAVE_LAST_OUT:
        yield validation_pb2.Warning(
            code="SPLIT_LEAKS",
            column="split",
            message="Train sees events of other users that are later than what valid and test hold out, so "
            "measured quality may be too good; a temporal split does not leak.",
        )
    for split in made.splits[1:]:
        if split.positives == 0:
            yield validation_pb2.Warning(
                code="EMPTY_SPLIT", column="split", message=_why_empty(split, made.cuts_us)
            )


def _why_empty(split: SplitRows, cuts_us: Sequence[int]) -> str:
    left_out = split.positives_without_user + split.positives_without_item
    if left_out == 0:
        wish = "choose other cuts" if cuts_us else "users need more positives"
        return f"No pair is first positive in {split.name}; {wish}."
    return (
        f"None of the {left_out} pairs of {split.name} has a user and an item of train's core; "
        f"{'choose other cuts, or ' if cuts_us else ''}lower min_interactions_per_user and "
        "min_interactions_per_item."
    )
