"""Events of one topic, in order: what every sink takes.

A batch holds a column for each attribute that differs between its events, so that
a million row events are a few Arrow buffers and not a million objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa


@dataclass(frozen=True)
class EventBatch:
    """CloudEvents 1.0 of one tenant and one type; all columns have one entry per event, none is null.

    Attributes:
        tenant: Whose events; `ce_source` is `/headrace/{tenant}`.
        type: `ce_type`, such as `headrace.interaction.v1`.
        content_type: Of `values`: `application/json` or `application/protobuf`.
        keys: string, what orders events: those of one key stay in order.
        ids: string, `ce_id`: derived from what the event tells of, so that a replay gives it again.
        times_us: int64, `ce_time` in microseconds since the epoch.
        values: binary, the payloads.
    """

    tenant: str
    type: str
    content_type: str
    keys: pa.StringArray
    ids: pa.StringArray
    times_us: pa.Int64Array
    values: pa.BinaryArray

    def __len__(self) -> int:
        return len(self.ids)


def concat(batches: Sequence[EventBatch]) -> EventBatch:
    """Batches of one tenant and type as one, in their order."""
    first = batches[0]
    if len(batches) == 1:
        return first
    return replace(
        first,
        keys=pa.concat_arrays([batch.keys for batch in batches]),
        ids=pa.concat_arrays([batch.ids for batch in batches]),
        times_us=pa.concat_arrays([batch.times_us for batch in batches]),
        values=pa.concat_arrays([batch.values for batch in batches]),
    )
