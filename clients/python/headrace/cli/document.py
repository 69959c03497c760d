"""Messages as JSON: the proto's field names, zeros included, counts as numbers."""

import itertools
import json
from collections.abc import Iterable
from typing import IO, Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_WIDE = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}


def document(message: Message) -> dict[str, Any]:
    """A message as a JSON object.

    Unlike the JSON mapping of protobuf, 64-bit integers are numbers: counts and
    versions stay far below 2^53.
    """
    fields: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    _number(message.DESCRIPTOR, fields)
    return fields


def _number(descriptor: Any, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        field = descriptor.fields_by_name[name]
        nested = field.message_type
        if field.cpp_type in _WIDE:
            fields[name] = [int(v) for v in value] if isinstance(value, list) else int(value)
        elif nested and not nested.full_name.startswith("google.protobuf."):
            for part in value if isinstance(value, list) else [value]:
                _number(nested, part)


def write_array(out: IO[str], head: dict[str, Any], key: str, elements: Iterable[object]) -> int:
    """Writes one JSON object whose last value is an array, element by element.

    Args:
        out: Where to.
        head: The values before it.
        key: The array's key.
        elements: Its elements; they are not held in memory.

    Returns:
        How many elements there were.
    """
    # What fails at once fails before anything is written.
    pending = iter(elements)
    first = next(pending, None)
    out.write("{")
    for name, value in head.items():
        out.write(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}, ")
    out.write(f"{json.dumps(key)}: [")
    count = 0
    for element in itertools.chain([] if first is None else [first], pending):
        out.write(("" if count == 0 else ",") + "\n  " + json.dumps(element, ensure_ascii=False))
        count += 1
    out.write("\n]}\n" if count else "]}\n")
    return count
