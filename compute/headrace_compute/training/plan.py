"""The shards of a sampling run."""

from headrace_compute.model import Shard, shard_plan
from headrace_compute.training.feature_columns import chosen
from headrace_compute.training.parameters import SamplingParams

FREE_NEGATIVES = 4
"""With so many, a million events are about a million rows, as few of them are positives."""

ROW_EVENTS = 50
"""So many events of a history cost as much as the rest of a row."""

ROW_COLUMNS = 16
"""So many columns of features cost the same."""


def sampling_plan(rows: int, params: SamplingParams) -> tuple[Shard, ...]:
    """Cuts the buckets so that a stage takes a second or two, whatever is made of an event.

    A worker is with one stage until it ends: others wait for so long at most.

    Args:
        rows: Interactions in the source.
        params: What to make of them.
    """
    ratio = max(params.negative_ratio, params.eval_negative_ratio or 0)
    row = 1 + params.history / ROW_EVENTS + len(chosen(params)) / ROW_COLUMNS
    return shard_plan(round(rows * max(1.0, (1 + ratio) * row / (1 + FREE_NEGATIVES))))
