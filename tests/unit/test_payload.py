"""Payloads of events, read back with `json` and the generated protobuf classes."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1.event_pb2 import CommitEvent as CommitMessage
from headrace.v1.event_pb2 import InteractionEvent, ItemEvent
from headrace_compute.delta.layout import SCHEMAS
from headrace_server.events.column_encoders import CHUNK_ROWS, Constant, JsonText, Text, encode_rows
from headrace_server.events.options import TYPES
from headrace_server.events.payload import CommitEvent, commit_event, row_events

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

text = st.text(min_size=1, max_size=30)
optional_text = st.none() | text
times = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), timezones=st.just(UTC))
number = st.floats(allow_nan=False, allow_infinity=False)
origin = {
    "upload_id": text,
    "row_number": st.integers(0, 2**63 - 1),
    "ingested_at": times,
    "bucket": st.just(0),
}
interactions = st.fixed_dictionaries(
    {
        "user_id": text,
        "item_id": text,
        "interaction_type": st.sampled_from(["view", "click", "purchase"]),
        "timestamp": times,
        "rating": st.none() | number,
        **origin,
    }
)
items = st.fixed_dictionaries(
    {
        "item_id": text,
        "title": text,
        "category": optional_text,
        "price": st.none() | number,
        "brand": optional_text,
        "description": optional_text,
        **origin,
    }
)

VIEW = {
    "user_id": "u1",
    "item_id": "i1",
    "interaction_type": "view",
    "timestamp": datetime(2026, 1, 31, 12, 0, 0, 5, UTC),
    "rating": 4.5,
    "upload_id": "5f2c",
    "row_number": 0,
    "ingested_at": datetime(2026, 2, 1, tzinfo=UTC),
    "bucket": 3,
}
ITEM = {
    "item_id": "i1",
    "title": "A title",
    "category": None,
    "price": 19.99,
    "brand": None,
    "description": 'Two\nlines, a "quote", a \\ and \x00\x1f\x7f é 🚀',
    "upload_id": "5f2c",
    "row_number": 12,
    "ingested_at": datetime(2026, 2, 1, tzinfo=UTC),
    "bucket": 3,
}


def table(kind: Any, rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), SCHEMAS[kind])


def micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def rfc3339(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    """What a row's JSON payload holds."""
    return {
        name: rfc3339(value) if isinstance(value, datetime) else value
        for name, value in row.items()
        if value is not None and name != "bucket"
    }


def as_message(row: dict[str, Any], message: type[Any]) -> Any:
    """The row's protobuf payload."""
    fields: dict[str, Any] = {"tenant_id": "acme"}
    for name, value in row.items():
        if isinstance(value, datetime):
            seconds, rest = divmod(micros(value), 1_000_000)
            fields[name] = Timestamp(seconds=seconds, nanos=rest * 1000)
        elif value is not None and name != "bucket":
            fields[name] = value
    return message(**fields)


@given(st.lists(interactions, min_size=1, max_size=20))
def test_interactions_as_json(rows: list[dict[str, Any]]) -> None:
    events = row_events("acme", "interactions", table("interactions", rows), "json")
    assert [json.loads(value) for value in events.values.to_pylist()] == list(map(as_json, rows))
    assert events.keys.to_pylist() == [f"acme/{row['user_id']}" for row in rows]
    assert events.ids.to_pylist() == [f"acme/{row['upload_id']}/{row['row_number']}" for row in rows]
    assert events.times_us.to_pylist() == [micros(row["timestamp"]) for row in rows]
    assert (events.type, events.content_type) == ("headrace.interaction.v1", "application/json")


@given(st.lists(items, min_size=1, max_size=20))
def test_items_as_json(rows: list[dict[str, Any]]) -> None:
    events = row_events("acme", "items", table("items", rows), "json")
    assert [json.loads(value) for value in events.values.to_pylist()] == list(map(as_json, rows))
    assert events.keys.to_pylist() == [f"acme/{row['item_id']}" for row in rows]
    assert events.times_us.to_pylist() == [micros(row["ingested_at"]) for row in rows]
    assert (events.type, events.content_type) == ("headrace.item.v1", "application/json")


@given(st.lists(interactions, min_size=1, max_size=20))
def test_interactions_as_protobuf_are_byte_for_byte_the_serialised_message(
    rows: list[dict[str, Any]],
) -> None:
    events = row_events("acme", "interactions", table("interactions", rows), "protobuf")
    expected = [as_message(row, InteractionEvent).SerializeToString() for row in rows]
    assert events.values.to_pylist() == expected
    assert events.content_type == "application/protobuf"


@given(st.lists(items, min_size=1, max_size=20))
def test_items_as_protobuf_are_byte_for_byte_the_serialised_message(rows: list[dict[str, Any]]) -> None:
    events = row_events("acme", "items", table("items", rows), "protobuf")
    assert events.values.to_pylist() == [as_message(row, ItemEvent).SerializeToString() for row in rows]


def test_json_has_the_contracts_order_no_nulls_and_six_digits_of_a_second() -> None:
    events = row_events(
        "acme", "interactions", table("interactions", [VIEW, {**VIEW, "rating": None}]), "json"
    )
    assert events.values.to_pylist() == [
        b'{"user_id":"u1","item_id":"i1","interaction_type":"view","timestamp":"2026-01-31T12:00:00.000005Z",'
        b'"rating":4.5,"upload_id":"5f2c","row_number":0,"ingested_at":"2026-02-01T00:00:00.000000Z"}',
        b'{"user_id":"u1","item_id":"i1","interaction_type":"view","timestamp":"2026-01-31T12:00:00.000005Z",'
        b'"upload_id":"5f2c","row_number":0,"ingested_at":"2026-02-01T00:00:00.000000Z"}',
    ]


def test_text_is_escaped_as_json_wants_it() -> None:
    (value,) = row_events("acme", "items", table("items", [ITEM]), "json").values.to_pylist()
    assert json.loads(value)["description"] == ITEM["description"]
    assert rb'"Two\nlines, a \"quote\", a \\ and \u0000\u001f' in value
    assert "é 🚀".encode() in value


@pytest.mark.parametrize(
    "price", [0.0, 5e-324, 1.7976931348623157e308, 0.1, 1 / 3, 1e16, 123456789012345680.0, 1e-7]
)
@pytest.mark.parametrize("format", ["json", "protobuf"])
def test_doubles_are_the_same_doubles_again(price: float, format: Any) -> None:
    (value,) = row_events(
        "acme", "items", table("items", [{**ITEM, "price": price}]), format
    ).values.to_pylist()
    read = json.loads(value)["price"] if format == "json" else ItemEvent.FromString(value).price
    assert read == price


@pytest.mark.parametrize("format", ["json", "protobuf"])
def test_an_optional_field_is_absent_where_null(format: Any) -> None:
    rows = [ITEM, {**ITEM, "price": None, "description": None, "brand": "b"}]
    first, second = row_events("acme", "items", table("items", rows), format).values.to_pylist()
    if format == "json":
        assert "price" in json.loads(first)
        assert json.loads(second).keys().isdisjoint({"price", "description", "category"})
    else:
        assert ItemEvent.FromString(first).HasField("price")
        assert not any(ItemEvent.FromString(second).HasField(name) for name in ("price", "description"))


def test_many_rows_in_many_chunks_keep_their_order() -> None:
    count = 3 * CHUNK_ROWS + 17
    rows = [
        {**VIEW, "row_number": n, "user_id": f"u{n % 97}", "rating": None if n % 3 else 2.5}
        for n in range(count)
    ]
    whole = table("interactions", rows)
    chunked = pa.concat_tables([whole.slice(0, 1000), whole.slice(1000, 5), whole.slice(1005)])
    events = row_events("acme", "interactions", chunked, "json")
    assert [json.loads(value) for value in events.values.to_pylist()] == list(map(as_json, rows))
    part = row_events("acme", "interactions", chunked.slice(998, 20), "json")
    assert part.values.equals(events.values.slice(998, 20))


@pytest.mark.parametrize("format", ["json", "protobuf"])
def test_no_rows_are_no_events(format: Any) -> None:
    assert len(row_events("acme", "interactions", table("interactions", []), format)) == 0


def test_a_commit_as_json_and_as_protobuf() -> None:
    event = CommitEvent(
        tenant="acme",
        table="user_features",
        kind="user_features",
        uri="s3://features/acme/user_features",
        version=3,
        rows=12,
        time_us=micros(datetime(2026, 2, 1, 0, 0, 0, 5, UTC)),
        lineage={"headrace.as_of": "2026-01-31", "headrace.code": "0.1.0"},
    )
    told = commit_event(event, "json")
    assert len(told) == 1
    assert json.loads(told.values[0].as_py()) == {
        "table": "user_features",
        "table_uri": "s3://features/acme/user_features",
        "version": 3,
        "rows": 12,
        "lineage": {"headrace.as_of": "2026-01-31", "headrace.code": "0.1.0"},
    }
    assert (told.keys.to_pylist(), told.ids.to_pylist()) == (["acme/user_features"], ["acme/user_features@3"])
    assert (told.type, told.times_us.to_pylist()) == ("headrace.features.v1", [event.time_us])
    message = CommitMessage.FromString(commit_event(event, "protobuf").values[0].as_py())
    assert message == CommitMessage(
        tenant_id="acme",
        table="user_features",
        kind="user_features",
        table_uri="s3://features/acme/user_features",
        version=3,
        rows=12,
        lineage={"headrace.as_of": "2026-01-31", "headrace.code": "0.1.0"},
        committed_at=Timestamp(seconds=event.time_us // 1_000_000, nanos=5_000),
    )


def test_commit_events_of_one_commit_are_the_same_bytes_each_time() -> None:
    def of(lineage: dict[str, str]) -> bytes:
        event = CommitEvent("acme", "items", "items", "file:///x", 1, 1, 0, lineage)
        return bytes(commit_event(event, "protobuf").values[0].as_py())

    assert of({"a": "1", "b": "2"}) == of({"b": "2", "a": "1"})


def test_rejects_have_no_event_type() -> None:
    assert "rejects" not in TYPES


def test_rows_that_take_two_gib_are_refused_before_anything_is_written() -> None:
    with pytest.raises(ValueError, match="encode fewer at a time"):
        encode_rows(1 << 21, [Constant(bytes(1024))])


@given(st.lists(st.none() | st.text(max_size=40), max_size=30))
def test_json_text_is_what_json_dumps_writes(values: list[str | None]) -> None:
    column = pa.array(values, pa.string())
    data, offsets = encode_rows(len(values), [JsonText(b'"', column, b'"'), Text(b"", column)])
    for row, value in enumerate(values):
        found = data[offsets[row] : offsets[row + 1]].tobytes().decode()
        assert found == ("" if value is None else json.dumps(value, ensure_ascii=False) + value)
