"""Columns that a request adds to the rows of a training set: features and histories."""

from typing import Literal

from headrace.v1 import run_pb2
from headrace_compute.training.feature_columns import columns_of
from headrace_compute.training.parameters import POINT_IN_TIME, SNAPSHOT
from headrace_server.rpc import requests

MAX_HISTORY = 1_000

EXAMPLE_COLUMN = "user_total_interactions"


def requested_features(
    request: run_pb2.SampleNegativesRequest,
) -> Literal["snapshot", "point_in_time"] | None:
    """Which instant features are of; None without features.

    Raises:
        InvalidFieldError: It is none that there is, or would tell what a split holds out.
    """
    match request.with_features:
        case "":
            return None
        case "point_in_time":
            return POINT_IN_TIME
        case "snapshot":
            if request.split.HasField("leave_last_out"):
                raise requests.invalid(
                    "with_features",
                    "Features of a snapshot know the events that leave_last_out holds out; "
                    "choose point_in_time, or a temporal split.",
                )
            return SNAPSHOT
    raise requests.invalid(
        "with_features",
        f"Field with_features is {request.with_features[:80]!r}; expected {SNAPSHOT} or {POINT_IN_TIME}.",
    )


def requested_columns(request: run_pb2.SampleNegativesRequest) -> tuple[str, ...]:
    """The columns of features, each once; empty for all.

    Raises:
        InvalidFieldError: There is no such column.
    """
    wanted = tuple(dict.fromkeys(request.feature_columns))
    if not wanted:
        return ()
    kind = requested_features(request)
    if kind is None:
        raise requests.invalid(
            "feature_columns", "Field feature_columns is for features; give with_features as well."
        )
    columns = columns_of(kind)
    if naming := [name for name in wanted if name in columns_of(POINT_IN_TIME) and name not in columns]:
        raise requests.invalid(
            "feature_columns",
            f"Field feature_columns names {naming[0]}, which would name the positive in a snapshot; "
            f"leave it out, or choose {POINT_IN_TIME}.",
        )
    if unknown := [name for name in wanted if name not in columns]:
        near = requests.nearest(unknown[0], columns) or EXAMPLE_COLUMN
        raise requests.invalid(
            "feature_columns",
            f"Field feature_columns names {unknown[0][:80]!r}; expected a column such as {near}.",
        )
    return wanted


def requested_history(request: run_pb2.SampleNegativesRequest) -> int:
    """Events of a history at most; 0 without histories.

    Raises:
        InvalidFieldError: It is out of range, or not given with what is for histories only.
    """
    if request.history > MAX_HISTORY:
        raise requests.invalid(
            "history", f"Field history is {request.history}; it must be 0 to {MAX_HISTORY:,}."
        )
    for field in ("history_interaction_types", "history_timestamps"):
        if getattr(request, field) and not request.history:
            raise requests.invalid(field, f"Field {field} is for histories; give history as well.")
    return request.history


def history_types(request: run_pb2.SampleNegativesRequest) -> tuple[str, ...]:
    """The types of a history's events; empty for the positive types."""
    return requests.check_types("history_interaction_types", request.history_interaction_types)
