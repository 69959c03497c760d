"""The columns of a dataset."""

import pyarrow as pa

from headrace_compute.features.registry import field_of
from headrace_compute.training.feature_columns import chosen
from headrace_compute.training.history_columns import HISTORY, HISTORY_INDEX, HISTORY_TIMESTAMPS
from headrace_compute.training.index_columns import INDICES
from headrace_compute.training.parameters import SamplingParams
from headrace_compute.training.rows import TRAINING_SCHEMA


def schema_of(params: SamplingParams) -> pa.Schema:
    """Those of every dataset, then features, the history, the indices."""
    schema = TRAINING_SCHEMA
    for name, (_, feature) in chosen(params).items():
        schema = schema.append(field_of(feature).with_name(name))
    if params.history:
        schema = schema.append(HISTORY)
        if params.history_timestamps:
            schema = schema.append(HISTORY_TIMESTAMPS)
        if params.with_indices:
            schema = schema.append(HISTORY_INDEX)
    for field in INDICES if params.with_indices else ():
        schema = schema.append(field)
    return schema
