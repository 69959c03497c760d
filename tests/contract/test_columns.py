"""The contract's columns are the same on the wire, in schemas, in tables and in events."""

from typing import get_args

import pyarrow as pa
import pytest
from google.protobuf.message import Message

from headrace.v1 import event_pb2, row_pb2
from headrace_compute.columns import CONTRACT, INTERACTION_TYPES, KEY, ORIGIN
from headrace_compute.delta.layout import CONTRACT_SCHEMAS, SCHEMAS, STATS
from headrace_compute.model import DataType
from headrace_compute.schemas.contract import describe

ROWS: dict[DataType, type[Message]] = {"interactions": row_pb2.Interaction, "items": row_pb2.Item}
EVENTS: dict[DataType, type[Message]] = {
    "interactions": event_pb2.InteractionEvent,
    "items": event_pb2.ItemEvent,
}


@pytest.mark.parametrize("data_type", get_args(DataType))
def test_rows_events_and_schemas_have_the_contract_s_columns(data_type: DataType) -> None:
    columns = list(CONTRACT[data_type])
    assert [field.name for field in ROWS[data_type].DESCRIPTOR.fields] == columns
    assert {*columns, *ORIGIN} <= {field.name for field in EVENTS[data_type].DESCRIPTOR.fields}
    described = describe(data_type).columns
    assert {column.name: column.type for column in described} == CONTRACT[data_type]
    assert [column.name for column in described] == columns
    assert KEY[data_type] in columns


def test_tables_have_the_columns_that_released_versions_stored() -> None:
    time = pa.timestamp("us", tz="UTC")
    origin = {"upload_id": pa.string(), "row_number": pa.int64(), "ingested_at": time, "bucket": pa.int16()}
    ids = {"user_id": pa.string(), "item_id": pa.string(), "interaction_type": pa.string()}
    texts = {"item_id": pa.string(), "title": pa.string(), "category": pa.string()}
    interactions = pa.schema({**ids, "timestamp": time, "rating": pa.float64()})
    items = pa.schema({**texts, "price": pa.float64(), "brand": pa.string(), "description": pa.string()})
    assert {"interactions": interactions, "items": items} == CONTRACT_SCHEMAS
    assert SCHEMAS["interactions"] == pa.schema([*interactions, *pa.schema(origin)])
    assert SCHEMAS["items"] == pa.schema([*items, *pa.schema(origin)])
    assert STATS["interactions"] == ("timestamp", "rating", "row_number", "ingested_at", "bucket")
    assert STATS["items"] == ("price", "row_number", "ingested_at", "bucket")


def test_the_types_of_interactions_are_those_that_the_schema_allows() -> None:
    (kind,) = [column for column in describe("interactions").columns if column.name == "interaction_type"]
    assert kind.allowed_values == INTERACTION_TYPES
