"""Values of Arrow types that the contract does not take, as the text by which a reject shows them."""

import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

SHOWN_CHARACTERS = 256
"""Of a nested value, about as much as is written out; a reject shows no more of it."""

_MAX_DEPTH = 8
"""Lists and structs that are written out within each other."""


def value_texts(array: pa.Array) -> pa.Array:
    """The text of each value: of a number its digits, of a list or struct the beginning of its JSON.

    Args:
        array: Checked against its buffers. Dictionaries are taken, run ends are not.

    Returns:
        Binary of any kind, plain or behind the indices of a dictionary; dates and timestamps as they came,
        since `ArrowRecords` writes them out.
    """
    kind = array.type
    if pt.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(array.indices, value_texts(array.dictionary))
    if pt.is_date(kind) or pt.is_timestamp(kind) or _is_binary(kind):
        return array
    if pt.is_fixed_size_binary(kind):
        return array.cast(pa.binary())
    if pt.is_duration(kind):
        numbers = array.view(pa.int64()).cast(pa.string())
        return pc.binary_join_element_wise(numbers, kind.unit, " ").view(pa.binary())
    if (pt.is_primitive(kind) or pt.is_decimal(kind)) and not pt.is_interval(kind):
        return array.cast(pa.string()).view(pa.binary())
    return pa.array([_nested(value) for value in array], pa.string()).view(pa.binary())


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind))


def _nested(value: pa.Scalar) -> str | None:
    """As much of a value's JSON as is shown; None for null."""
    if not value.is_valid:
        return None
    text = ""
    for piece in _pieces(value, 0):
        text += piece
        if len(text) >= SHOWN_CHARACTERS:
            break
    return text


def _pieces(value: pa.Scalar, depth: int) -> Iterator[str]:
    """The JSON of a value, little by little: it may be far larger than what is looked at."""
    if not value.is_valid:
        yield "null"
    elif depth == _MAX_DEPTH:
        yield "…"
    elif isinstance(value, pa.StructScalar):
        names = [value.type.field(place).name for place in range(value.type.num_fields)]
        for place, name in enumerate(names):
            yield f"{', ' if place else '{'}{json.dumps(name, ensure_ascii=False)}: "
            yield from _pieces(value[place], depth + 1)
        yield "}" if names else "{}"
    elif isinstance(value, pa.DictionaryScalar | pa.RunEndEncodedScalar | pa.UnionScalar):
        yield from _pieces(value.value, depth + 1)
    elif isinstance(value, pa.ListScalar):
        yield "["
        for place, element in enumerate(value.values):
            yield ", " if place else ""
            yield from _pieces(element, depth + 1)
        yield "]"
    else:
        yield _plain(value)


def _plain(value: pa.Scalar) -> str:
    kind = value.type
    if pt.is_boolean(kind):
        return "true" if value.as_py() else "false"
    if pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind):
        return str(value.as_py())
    if isinstance(value, pa.BinaryScalar):
        content = value.as_buffer()
        text = content.slice(0, min(content.size, SHOWN_CHARACTERS)).to_pybytes().decode("utf-8", "replace")
        return json.dumps(text, ensure_ascii=False)
    try:
        return json.dumps(str(value.as_py()), ensure_ascii=False)
    except (ArithmeticError, ValueError):
        return json.dumps(str(kind))  # A time that Python has no value for.
