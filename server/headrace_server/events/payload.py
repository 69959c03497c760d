"""The payloads of events, as JSON or protobuf, encoded column by column.

JSON payloads of rows are objects of the contract's columns and where the row came
from; what is null is left out, times are RFC 3339 in UTC with six digits of a second,
numbers have their shortest form that reads back as the same double. Protobuf payloads
are the messages of headrace/v1/event.proto, each field in its place by number.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from google.protobuf.timestamp_pb2 import Timestamp as ProtoTimestamp

from headrace.v1.event_pb2 import CommitEvent as ProtoCommitEvent
from headrace.v1.event_pb2 import InteractionEvent, ItemEvent
from headrace_compute.columns import CONTRACT, KEY, ORIGIN
from headrace_server.events.batch import EventBatch
from headrace_server.events.column_encoders import (
    ColumnEncoder,
    Constant,
    Digits,
    JsonText,
    Text,
    Time,
    Timestamp,
    Varint,
    encode_rows,
)
from headrace_server.events.options import TYPES, Format

CONTENT_TYPES: Mapping[Format, str] = {"json": "application/json", "protobuf": "application/protobuf"}


@dataclass(frozen=True)
class CommitEvent:
    """One version of one table.

    Attributes:
        table: Its name, as ListTables gives it.
        time_us: When it was committed.
        lineage: Inputs, parameters and code version, as the commit records them.
    """

    tenant: str
    table: str
    kind: str
    uri: str
    version: int
    rows: int
    time_us: int
    lineage: Mapping[str, str]


@dataclass(frozen=True)
class _RowMapping:
    """How rows of one kind become events.

    Attributes:
        key: Column that, with the tenant, makes the key.
        time: Column that `ce_time` is.
        columns: Columns of the payload, in the order of the contract.
        message: The protobuf payload; a field has the name of its column.
    """

    key: str
    time: str
    columns: tuple[str, ...]
    message: type[InteractionEvent] | type[ItemEvent]


_ROWS = {
    "interactions": _RowMapping(
        key=KEY["interactions"],
        time="timestamp",
        columns=(*CONTRACT["interactions"], *ORIGIN),
        message=InteractionEvent,
    ),
    "items": _RowMapping(
        key=KEY["items"],
        time="ingested_at",
        columns=(*CONTRACT["items"], *ORIGIN),
        message=ItemEvent,
    ),
}


def row_events(tenant: str, kind: str, rows: pa.Table, format: Format) -> EventBatch:
    """One event per row, in the order of the rows.

    Args:
        kind: `interactions` or `items`.
        rows: Columns of `delta.layout.SCHEMAS[kind]`; others are not looked at.

    Raises:
        ValueError: The payloads take 2 GiB or more: give fewer rows at a time.
    """
    mapping = _ROWS[kind]
    columns = {name: _whole(rows.column(name)) for name in mapping.columns}
    prefix = f"{tenant}/".encode()
    ids: list[ColumnEncoder] = [Text(prefix, columns["upload_id"]), Digits(b"/", columns["row_number"])]
    values = _json_encoders(columns) if format == "json" else _protobuf_encoders(tenant, mapping, columns)
    return EventBatch(
        tenant=tenant,
        type=TYPES[kind],
        content_type=CONTENT_TYPES[format],
        keys=_joined(pa.string(), rows.num_rows, [Text(prefix, columns[mapping.key])]),
        ids=_joined(pa.string(), rows.num_rows, ids),
        times_us=columns[mapping.time].cast(pa.int64()),
        values=_joined(pa.binary(), rows.num_rows, values),
    )


def commit_event(event: CommitEvent, format: Format) -> EventBatch:
    """The one event of a commit, as a batch of one."""
    return EventBatch(
        tenant=event.tenant,
        type=TYPES[event.kind],
        content_type=CONTENT_TYPES[format],
        keys=pa.array([f"{event.tenant}/{event.table}"], pa.string()),
        ids=pa.array([f"{event.tenant}/{event.table}@{event.version}"], pa.string()),
        times_us=pa.array([event.time_us], pa.int64()),
        values=pa.array([_commit_json(event) if format == "json" else _commit_protobuf(event)], pa.binary()),
    )


def _json_encoders(columns: Mapping[str, pa.Array]) -> list[ColumnEncoder]:
    encoders: list[ColumnEncoder] = []
    for name, column in columns.items():
        label = f'{"," if encoders else "{"}"{name}":'.encode()
        if pa.types.is_string(column.type):
            encoders.append(JsonText(label + b'"', column, b'"'))
        elif pa.types.is_timestamp(column.type):
            encoders.append(Time(label + b'"', column, b'"'))
        elif pa.types.is_integer(column.type):
            encoders.append(Digits(label, column))
        else:
            encoders.append(Text(label, column.cast(pa.string())))
    return [*encoders, Constant(b"}")]


_VARINT, _FIXED64, _SIZED = 0, 1, 2
"""Wire types of protobuf, the lowest three bits of a field's tag."""


def _protobuf_encoders(
    tenant: str, mapping: _RowMapping, columns: Mapping[str, pa.Array]
) -> list[ColumnEncoder]:
    fields = mapping.message.DESCRIPTOR.fields_by_name
    encoders: dict[int, ColumnEncoder] = {
        fields["tenant_id"].number: Constant(mapping.message(tenant_id=tenant).SerializeToString())
    }
    for name, column in columns.items():
        number = fields[name].number
        if pa.types.is_string(column.type):
            encoders[number] = Text(_tag(number, _SIZED), column, sized=True)
        elif pa.types.is_timestamp(column.type):
            encoders[number] = Timestamp(_tag(number, _SIZED), column)
        elif pa.types.is_integer(column.type):
            encoders[number] = Varint(_tag(number, _VARINT), column)
        else:
            # Eight bytes as they lie in memory, which is little-endian wherever Arrow is.
            encoders[number] = Text(_tag(number, _FIXED64), column.view(pa.binary(8)).cast(pa.binary()))
    return [encoders[number] for number in sorted(encoders)]


def _tag(number: int, wire_type: int) -> bytes:
    return bytes([number << 3 | wire_type])


def _commit_json(event: CommitEvent) -> bytes:
    data = {
        "table": event.table,
        "table_uri": event.uri,
        "version": event.version,
        "rows": event.rows,
        "lineage": dict(event.lineage),
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _commit_protobuf(event: CommitEvent) -> bytes:
    seconds, micros = divmod(event.time_us, 1_000_000)
    return ProtoCommitEvent(
        tenant_id=event.tenant,
        table=event.table,
        kind=event.kind,
        table_uri=event.uri,
        version=event.version,
        rows=event.rows,
        lineage=event.lineage,
        committed_at=ProtoTimestamp(seconds=seconds, nanos=micros * 1000),
    ).SerializeToString(deterministic=True)


def _joined(kind: pa.DataType, rows: int, encoders: list[ColumnEncoder]) -> pa.Array:
    data, offsets = encode_rows(rows, encoders)
    return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
