"""Records that break the data contract, one for every rule, and what a correct pipeline says of them.

Only BAD_TYPE is missing: CSV has no types to get wrong.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.arrow import np, pa

INVALID_UTF8 = "\udcff\udcfe"
"""Becomes the bytes FF FE, which no UTF-8 text has."""


@dataclass(frozen=True)
class Fault:
    """One way to break a record.

    Attributes:
        checks: The (column, code) pairs it is reported under; column "" is the whole record.
        values: What the fields become.
        surplus: Fields added at the end, or, if negative, taken away.
        misquoted: Whether text follows the closing quote of the first field.
    """

    checks: tuple[tuple[str, str], ...]
    values: Mapping[str, str] = field(default_factory=dict)
    surplus: int = 0
    misquoted: bool = False


def _fault(column: str, code: str, value: str) -> Fault:
    return Fault(((column, code),), {column: value})


DUPLICATE = Fault((("", "DUPLICATE"),))
"""The record becomes a copy of an earlier good one."""

_ANY_FILE = (
    DUPLICATE,
    Fault((("", "WRONG_FIELD_COUNT"),), surplus=1),
    Fault((("", "WRONG_FIELD_COUNT"),), surplus=-1),
    Fault((("", "BAD_QUOTE"),), misquoted=True),
    _fault("item_id", "MISSING", ""),
    _fault("item_id", "TOO_LONG", "i" * 257),
    _fault("item_id", "BAD_TEXT", "item\x1b[31m"),
)

INTERACTION_FAULTS = (
    *_ANY_FILE,
    _fault("user_id", "MISSING", ""),
    _fault("user_id", "TOO_LONG", "ü" * 129),
    _fault("user_id", "BAD_TEXT", f"user{INVALID_UTF8}"),
    _fault("interaction_type", "MISSING", ""),
    _fault("interaction_type", "NOT_IN_SET", "Purchase"),
    _fault("interaction_type", "NOT_IN_SET", "refund"),
    _fault("timestamp", "MISSING", ""),
    _fault("timestamp", "BAD_TIMESTAMP", "yesterday"),
    _fault("timestamp", "BAD_TIMESTAMP", "1764547200"),
    _fault("timestamp", "BAD_TIMESTAMP", "2025-02-30T12:00:00Z"),
    _fault("timestamp", "FUTURE_TIMESTAMP", "2999-12-31T23:59:59Z"),
    _fault("rating", "BAD_NUMBER", "five"),
    _fault("rating", "BAD_NUMBER", "nan"),
    _fault("rating", "OUT_OF_RANGE", "5.5"),
    _fault("rating", "OUT_OF_RANGE", "0"),
    Fault(
        (("interaction_type", "NOT_IN_SET"), ("rating", "OUT_OF_RANGE")),
        {"interaction_type": "VIEW", "rating": "-1"},
    ),
)

ITEM_FAULTS = (
    *_ANY_FILE,
    _fault("title", "MISSING", ""),
    _fault("title", "TOO_LONG", "t" * 1025),
    _fault("title", "BAD_TEXT", f"Caf{INVALID_UTF8}"),
    _fault("category", "TOO_LONG", "c" * 257),
    _fault("brand", "TOO_LONG", "b" * 257),
    _fault("description", "TOO_LONG", "d" * 16_385),
    _fault("price", "BAD_NUMBER", "12,50"),
    _fault("price", "BAD_NUMBER", "inf"),
    _fault("price", "OUT_OF_RANGE", "-0.01"),
    Fault((("title", "MISSING"), ("price", "OUT_OF_RANGE")), {"title": "", "price": "-5"}),
)


def spoil(
    lines: pa.Array, columns: Sequence[str], faults: Sequence[Fault], rate: float, draw: np.random.Generator
) -> tuple[pa.Array, Counter[tuple[str, str]], int]:
    """Breaks some records, every fault about equally often and at least once.

    Args:
        lines: Good records with their line ends, no two equal; binary.
        columns: Their columns.
        faults: The faults to choose from.
        rate: Share of the records to break.
        draw: Chooses the records.

    Returns:
        The lines, as many as before; how often each (column, code) was broken;
        how many records are bad, duplicates included.

    Raises:
        ValueError: There are too few records for every fault.
    """
    bad = max(round(rate * len(lines)), len(faults))
    if len(lines) < 2 * len(faults):
        raise ValueError(
            f"There are {len(lines)} records, too few to be dirty in every way; make {2 * len(faults)}."
        )
    # The first record stays good, so that every duplicate has something to copy.
    places = 1 + np.argsort(draw.random(len(lines) - 1))[:bad]
    good = np.setdiff1d(np.arange(len(lines)), places)
    checks: Counter[tuple[str, str]] = Counter()
    sources = np.arange(len(lines))
    broken: list[bytes] = []
    for number, place in enumerate(places):
        fault = faults[number % len(faults)]
        checks.update(fault.checks)
        if fault is DUPLICATE:
            sources[place] = good[int(draw.random() * np.searchsorted(good, place))]
        else:
            sources[place] = len(lines) + len(broken)
            broken.append(_break(lines[place].as_py(), columns, fault))
    return pa.concat_arrays([lines, pa.array(broken, pa.binary())]).take(pa.array(sources)), checks, bad


def _break(line: bytes, columns: Sequence[str], fault: Fault) -> bytes:
    (values,) = csv.reader(io.StringIO(line.decode(), newline=""))
    values = [fault.values.get(column, value) for column, value in zip(columns, values, strict=True)]
    if fault.surplus < 0:
        values = values[: fault.surplus]
    values += ["surplus"] * fault.surplus
    text = io.StringIO(newline="")
    if fault.misquoted:
        text.write(f'"{values.pop(0)}" (new),')
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode(errors="surrogateescape")
