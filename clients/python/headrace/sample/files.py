"""The files of the sample: items.csv, interactions.csv, and what a correct pipeline says of them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from headrace.arrow import pa
from headrace.sample import catalog, dirt, event
from headrace.sample.draw import Ints, draws
from headrace.sample.shop import open_shop

EARLIEST_END = datetime(1, 4, 1)
"""The 90 days before it lie in the year 1."""

DEFAULT_END = datetime(2026, 1, 1, tzinfo=UTC)
"""Where the sample ends unless told otherwise: a fixed date, so that equal calls give equal files."""

DAYS = 90
SLICE_ROWS = 1_000_000
MAX_DIRTY = 0.5
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Sample:
    """What to make. Equal samples give equal bytes.

    Attributes:
        users, items, interactions: How many; files have exactly as many records,
            dirty ones included.
        seed: Any integer from 0 on.
        dirty: Share of the records of both files that break the contract, 0.0 to
            0.5. Above 0, every reject code that CSV can have occurs at least once.
        end: All interactions lie in the 90 days before it; naive = UTC.
    """

    users: int = 10_000
    items: int = 5_000
    interactions: int = 100_000
    seed: int = 0
    dirty: float = 0.0
    end: datetime = DEFAULT_END

    def __post_init__(self) -> None:
        """Refuses what cannot be made."""
        for name in ("users", "items", "interactions"):
            if getattr(self, name) < 1:
                raise ValueError(f"Option {name} is {getattr(self, name)}; it must be at least 1.")
        if self.seed < 0:
            raise ValueError(f"Option seed is {self.seed}; it must be 0 or more.")
        if self.end.replace(tzinfo=None) < EARLIEST_END:
            raise ValueError(
                f"Option end is {self.end.isoformat()}; it must be {EARLIEST_END.date()} or later."
            )
        if not 0 <= self.dirty <= MAX_DIRTY:
            raise ValueError(f"Option dirty is {self.dirty}; it must be a share from 0 to {MAX_DIRTY}.")


@dataclass(frozen=True)
class Generated:
    """What was written.

    Attributes:
        items, interactions: The CSV files.
        expected: JSON: for each file rows_received, rows_accepted, rows_rejected,
            rows_duplicate and, for each (column, code), failing_rows.
        counts: The content of `expected`.
    """

    items: Path
    interactions: Path
    expected: Path
    counts: dict[str, Any]


def generate(sample: Sample, folder: Path, on_progress: Callable[[int], None] | None = None) -> Generated:
    """Writes the sample, over what may be there.

    Args:
        sample: What to make.
        folder: Where; made if it is not there.
        on_progress: Called with the number of interactions written so far.

    Raises:
        OSError: The files cannot be written.
        ValueError: There are too few records for every kind of dirt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = Generated(folder / "items.csv", folder / "interactions.csv", folder / "expected.json", {})
    categories = catalog.item_categories(sample.items, sample.seed)
    with made.items.open("wb") as file:
        made.counts["items"] = _write_items(sample, categories, file)
    with made.interactions.open("wb") as file:
        made.counts["interactions"] = _write_interactions(sample, categories, file, on_progress)
    made.expected.write_text(json.dumps(made.counts, indent=2) + "\n")
    return made


def _write_items(sample: Sample, categories: Ints, file: BinaryIO) -> dict[str, Any]:
    tally = _Tally(catalog.COLUMNS)
    file.write(tally.header())
    lines = pa.array((line.encode() for line in catalog.item_lines(categories, sample.seed)), pa.binary())
    if sample.dirty:
        draw = draws(sample.seed, "dirty items")
        lines = tally.spoilt(dirt.spoil(lines, catalog.COLUMNS, dirt.ITEM_FAULTS, sample.dirty, draw))
    file.write(_content(lines))
    return tally.counts(sample.items)


def _write_interactions(
    sample: Sample, categories: Ints, file: BinaryIO, on_progress: Callable[[int], None] | None
) -> dict[str, Any]:
    tally = _Tally(event.COLUMNS)
    file.write(tally.header())
    shop = open_shop(sample.users, categories, sample.seed)
    width = max(6, len(str(sample.users)))
    users = pa.array([f"user_{number:0{width}d}" for number in range(1, sample.users + 1)])
    items = pa.array(catalog.item_ids(sample.items))
    written = 0
    for part in _slices(sample):
        lines = event.event_lines(shop, users, items, part, draws(sample.seed, "interactions", part.number))
        if sample.dirty:
            draw = draws(sample.seed, "dirty interactions", part.number)
            lines = tally.spoilt(
                dirt.spoil(lines, event.COLUMNS, dirt.INTERACTION_FAULTS, sample.dirty, draw)
            )
        file.write(_content(lines))
        written += part.rows
        if on_progress:
            on_progress(written)
    return tally.counts(sample.interactions)


def _slices(sample: Sample) -> Iterator[event.Slice]:
    """Slices of time with even shares of the rows, so that memory does not grow with them."""
    end = sample.end if sample.end.tzinfo else sample.end.replace(tzinfo=UTC)
    end_ms = (end - EPOCH) // timedelta(milliseconds=1)
    first_ms = end_ms - DAYS * event.DAY_MS
    count = -(-sample.interactions // SLICE_ROWS)
    edges = [number * sample.interactions // count for number in range(count + 1)]
    times = [first_ms + number * (end_ms - first_ms) // count for number in range(count + 1)]
    for number in range(count):
        yield event.Slice(number, edges[number + 1] - edges[number], times[number], times[number + 1])


def _content(lines: pa.Array) -> memoryview:
    """The bytes of all lines, one after another: just what Arrow keeps them in."""
    offsets = memoryview(lines.buffers()[1]).cast("i")
    return memoryview(lines.buffers()[2])[offsets[lines.offset] : offsets[lines.offset + len(lines)]]


class _Tally:
    """Counts what was broken in a file."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self._checks: Counter[tuple[str, str]] = Counter()
        self._bad = 0

    def header(self) -> bytes:
        return (",".join(self._columns) + "\n").encode()

    def spoilt(self, outcome: tuple[pa.Array, Counter[tuple[str, str]], int]) -> pa.Array:
        lines, checks, bad = outcome
        self._checks.update(checks)
        self._bad += bad
        return lines

    def counts(self, rows: int) -> dict[str, Any]:
        order = (*self._columns, "")
        checks = sorted(self._checks.items(), key=lambda check: (order.index(check[0][0]), check[0][1]))
        return {
            "rows_received": rows,
            "rows_accepted": rows - self._bad,
            "rows_rejected": self._bad,
            "rows_duplicate": self._checks["", "DUPLICATE"],
            "checks": [{"column": column, "code": code, "failing_rows": n} for (column, code), n in checks],
        }
