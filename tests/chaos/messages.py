"""Requests for fuzzing: messages built from the contract's descriptors, and damage done to them.

Whether a field is set, and to what, is drawn from a seeded generator: mostly something that the server
could take, so that calls get past the first check, now and then something that it must refuse.
"""

import math
import random
import struct
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

DEPTH = 6
"""How deeply messages are nested; Struct may be nested for ever."""

SURROGATES = "\N{WHITE SMILING FACE}\N{BLACK SMILING FACE}"
"""Six bytes, replaced by those of a surrogate pair, which no string of protobuf may have."""

STRUCT = "google.protobuf.Struct"

HOSTILE = (
    *("", " ", "\0", "a\0b", "\x1b[31mred", "\x7f", "\x85", "\u2028", "\ufeff", "\ufffe"),
    *("é", "e\u0301", "ﬁ", "Å", "\u202eevil", "🧑‍🧑‍🧒", "İ", "ß", "\uff11\uff12", "\u200b", SURROGATES),
    *("..", "../../etc/passwd", "/", "//", "a/b", "a\\b", "%2e%2e%2f", "C:\\", "~", "-", "_", ".x"),
    *("'; DROP TABLE x; --", '"', "{}", "{0}", "%s%n", "$HOME", "`id`", "<b>", "[red]", "NaN"),
    *("x" * 64, "x" * 257, "x" * 5_000, "é" * 3_000, "\n" * 300, "0" * 400, "{" * 3_000, "a,b\r\nc"),
)
NUMBERS = (0.0, -0.0, 1.0, 0.5, -1.0, 4.5, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf, 2.0**53, 5.1)
TIMES = (
    *("2026-01-01", "2026-01-01T00:00:00Z", "2026-02-30", "9999-12-31T23:59:59.999999Z", "0000-00-00", "1e9"),
    *("2026-01-01T00:00:00+14:00", "0001-01-01T00:00:00+23:59", "2024-06-30T23:59:60Z", "now", "1,5"),
)
TABLES = (
    *("interactions", "items", "user_features", "item_features", "feature_statistics"),
    *("training_data", "rejects", "datasets/x"),
)
CSV = (
    b"user_id,item_id,interaction_type,timestamp,rating\nu1,i1,view,2026-01-01,4.5\nu1,i2,like,2026-01-02,\n",
    b"item_id,title,category,price,brand,description\ni1,Chair,,9.99,,\n",
    b'user_id,item_id,interaction_type,timestamp\nu1,"i1,view,2026-01-01\n',
    b"PAR1\0\0\0\0",
    b"\x1f\x8b\x08\0\0\0\0\0",
    b"\xff\xfeu\0s\0e\0r\0",
)


class Dice(random.Random):
    """A seeded generator that knows some of what a server would take.

    Args:
        seed: Equal seeds draw equal requests.
        tenants: Names of tenants that have data.
        uploads: Ids of their uploads.
    """

    def __init__(self, seed: str, tenants: Sequence[str], uploads: Sequence[str]) -> None:
        super().__init__(seed)
        columns = ("user_id", "item_id", "timestamp", "rating", "title", "bucket", "colour")
        self._known: dict[str, Sequence[Any]] = {
            "tenant_id": tenants,
            "data_type": ("interactions", "items"),
            "upload_id": uploads,
            "table": TABLES,
            "dataset": ("x", "training_data"),
            "columns": columns,
            "strategy": ("uniform", "popularity", "zipf", "mixed", "exposed"),
            "positive_interaction_types": ("view", "click", "purchase", "like", "buy"),
            "interaction_type": ("view", "click", "purchase"),
            "timestamp": TIMES,
            "symbol": ("headrace.v1.PipelineService", "headrace.v1.UploadRequest.header", "x.y"),
            "file_by_filename": ("headrace/v1/upload.proto", "google/protobuf/any.proto"),
            "service": ("", "headrace.v1.PipelineService", "grpc.health.v1.Health"),
            "key": (*columns, "view", "purchase"),
        }

    def often(self) -> bool:
        """Mostly true."""
        return self.random() < 0.85

    def message(self, kind: Descriptor, depth: int = DEPTH) -> Any:
        """A message of a kind."""
        message = GetMessageClass(kind)()
        for field in kind.fields:
            likely = 0.95 if field.name in self._known else 0.4 if field.has_presence else 0.6
            if self.random() < likely:
                self._set(message, field, depth)
        return message

    def _set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        nested = field.message_type
        if nested is not None and depth == 0:
            return
        if not field.is_repeated:
            if nested is None:
                setattr(message, field.name, self._value(field))
            else:
                getattr(message, field.name).CopyFrom(self._nested(nested, depth - 1))
            return
        if nested is not None and nested.GetOptions().map_entry:
            self._fill(getattr(message, field.name), nested)
            return
        make = self._value if nested is None else lambda _: self._nested(nested, depth - 1)
        getattr(message, field.name).extend(make(field) for _ in range(self.choice((0, 1, 1, 2, 3, 20))))

    def _fill(self, entries: Any, entry: Descriptor) -> None:
        """Puts entries into a map of plain values."""
        key, value = (entry.fields_by_name[name] for name in ("key", "value"))
        for _ in range(self.choice((0, 1, 2, 5))):
            entries[self._value(key)] = self._value(value)

    def _nested(self, kind: Descriptor, depth: int) -> Any:
        return self.object(depth) if kind.full_name == STRUCT else self.message(kind, depth)

    def stream(self, kind: Descriptor) -> list[Any]:
        """Messages of a client's stream: mostly from its first kind of message to its last."""
        kinds = [field.name for oneof in kind.oneofs for field in oneof.fields]
        order = [kinds[0]] if self.often() else []
        order += [self.choice(kinds[1:] or kinds) for _ in range(self.randrange(5))]
        order += [kinds[-1]] if self.often() else []
        return [self._of(kind, name) for name in order]

    def _of(self, kind: Descriptor, name: str) -> Any:
        message = self.message(kind)
        if self.often():
            self._set(message, kind.fields_by_name[name], DEPTH)
        return message

    def object(self, depth: int) -> struct_pb2.Struct:
        """A JSON object."""
        found = struct_pb2.Struct()
        for _ in range(self.randrange(7)):
            found.fields[self.text("key")].CopyFrom(self._json(depth))
        return found

    def _json(self, depth: int) -> struct_pb2.Value:
        match self.randrange(8 if depth > 0 else 6):
            case 0:
                return struct_pb2.Value(number_value=self.choice(NUMBERS))
            case 1:
                return struct_pb2.Value(bool_value=self.often())
            case 2:
                return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
            case 3:
                return struct_pb2.Value()
            case 6:
                return struct_pb2.Value(struct_value=self.object(depth - 1))
            case 7:
                values = [self._json(depth - 1) for _ in range(3)]
                return struct_pb2.Value(list_value=struct_pb2.ListValue(values=values))
            case _:
                return struct_pb2.Value(string_value=self.text("timestamp"))

    def _value(self, field: FieldDescriptor) -> Any:
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return self.data()
            case FieldDescriptor.CPPTYPE_STRING:
                return self.text(field.name)
            case FieldDescriptor.CPPTYPE_ENUM:
                names = field.enum_type.values_by_number if field.enum_type is not None else {0: None}
                return self.choice(list(names) if self.often() else (99, -1, 2**31 - 1, -(2**31)))
            case FieldDescriptor.CPPTYPE_BOOL:
                return self.random() < 0.5
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                return self.choice(NUMBERS)
            case FieldDescriptor.CPPTYPE_INT64:
                return self.choice((0, 1, 2, -1, 2**31, 2**63 - 1, -(2**63), 253_402_300_800))
            case FieldDescriptor.CPPTYPE_UINT64:
                return self.choice((0, 1, 2, 100, 2**31, 2**63, 2**64 - 1))
            case FieldDescriptor.CPPTYPE_INT32:
                return self.choice((0, 1, 2, -1, 10**9, 2**31 - 1, -(2**31)))
            case _:
                return self.choice((0, 1, 2, 4, 1_000, 2**31, 2**32 - 1))

    def text(self, field: str) -> str:
        """A string for a field of this name."""
        if field in self._known and self.often():
            return str(self.choice(self._known[field]))
        if field.endswith("_id") and self.random() < 0.7:
            return self.choice((f"i{self.randrange(9)}", str(uuid.UUID(int=self.getrandbits(128)))))
        return self.choice(HOSTILE)

    def data(self) -> bytes:
        """Content of a stream."""
        if self.often():
            return self.choice(CSV)
        return self.choice((b"", b"\0", self.randbytes(40), self.choice(HOSTILE).encode()))

    def wire(self, message: Message) -> bytes:
        """A message's bytes, now and then damaged."""
        data = message.SerializeToString().replace(SURROGATES.encode(), b"\xed\xa0\x80\xed\xb0\x80")
        return data if self.random() < 0.8 else self.damaged(data)

    def damaged(self, data: bytes) -> bytes:
        """Bytes with a part missing, turned, doubled, or of something else."""
        at = self.randrange(len(data) + 1)
        match self.randrange(7):
            case 0:
                return data[:at]
            case 1:
                return data[:at] + self.randbytes(self.choice((1, 2, 8))) + data[at:]
            case 2 if data:
                return data[: at - 1] + bytes((self.randrange(256),)) + data[at:]
            case 3:
                return data + data
            case 4:
                # A field that no message has, and a group that no one opened.
                return data + self.choice((b"\xf8\xff\xff\xff\x0f\x01", b"\x0c", b"\xfa\xff\xff\xff\x0f\xff"))
            case 5:
                # Nested deeper than any decoder goes.
                return data + b"\x0a\x7f" * 200
            case _:
                return self.randbytes(self.choice((1, 5, 100)))

    def metadata(self) -> list[tuple[str, str | bytes]]:
        """Metadata that a client of gRPC may send."""
        many: Sequence[Callable[[], tuple[str, str | bytes]]] = (
            lambda: ("x-request-id", self.choice(("abc", " ", "", "x" * 900, 'a,b;c="d"', "{}%s"))),
            lambda: ("x-request-id-bin", self.randbytes(8)),
            lambda: ("traceparent", self.choice(("00-1-2-3", "zz", "0" * 55))),
            lambda: ("x-" + "k" * self.choice((1, 100)), "v" * self.choice((1, 1_000))),
            lambda: ("blob-bin", struct.pack("<d", math.nan) * 20),
        )
        return [self.choice(many)() for _ in range(self.randrange(4))] if self.random() < 0.3 else []
