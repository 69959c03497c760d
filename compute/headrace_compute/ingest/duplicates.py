"""Duplicates across blocks: found by hash, confirmed by value, dropped block by block.

Within a block `ingest_block` has dropped them already. The server asks for one
range of hashes after another, on any worker, and then has each block that
holds a later copy rewritten without it. Memory is bounded by the range.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.delta.layout import SCHEMAS, STATS
from headrace_compute.findings import SAMPLES
from headrace_compute.ingest import rejects
from headrace_compute.ingest.accepted import PLACE
from headrace_compute.ingest.block import part_name
from headrace_compute.ingest.block_result import BlockResult
from headrace_compute.ingest.rejects import reject_table, samples_of
from headrace_compute.kernels.rows import first_hashes, first_rows
from headrace_compute.model import DataType, Part, StoreConfig, UploadSpec
from headrace_compute.objects.store import ObjectStore, open_store
from headrace_compute.parts import read_part, write_part
from headrace_compute.schemas.contract import describe

RANGE_ROWS = 6_000_000
"""Rows whose hashes one call of `find_duplicates` holds, about: some 200 MiB."""

PLACES = pa.schema({"block": pa.int64(), **PLACE, "duplicate_of": pa.int64()})


@dataclass(frozen=True)
class BlockParts:
    """Where one block's accepted rows lie, and how they hash."""

    index: int
    data: Part
    sidecar: Part


@dataclass(frozen=True)
class Duplicates:
    """What the rows of one upload repeat of each other.

    Attributes:
        rows: PLACES, by row_number: each later copy of a row, its block's index, where it stood,
            and the row_number of the first copy, which stays.
        redefined: Rows that define an item again with other values; told by hash.
        redefined_samples: Their item_ids, the first ones.
    """

    rows: pa.Table
    redefined: int = 0
    redefined_samples: tuple[str, ...] = ()

    def of_block(self, index: int) -> pa.Table:
        """The later copies in one block: PLACES."""
        return self.rows.filter(pa.array(self.rows.column("block").to_numpy() == index))


@dataclass(frozen=True)
class DuplicateCounts:
    """What the server needs to know of the duplicates in some ranges; they may be as many as the rows.

    Attributes:
        blocks: Indices of the blocks that hold later copies.
        redefined, redefined_samples: As of Duplicates.
    """

    blocks: frozenset[int] = frozenset()
    redefined: int = 0
    redefined_samples: tuple[str, ...] = ()

    def merge(self, other: "DuplicateCounts") -> "DuplicateCounts":
        """Both together."""
        samples = self.redefined_samples + other.redefined_samples
        return DuplicateCounts(
            self.blocks | other.blocks, self.redefined + other.redefined, samples[:SAMPLES]
        )


def parts_of(blocks: Sequence[BlockResult]) -> tuple[BlockParts, ...]:
    """The stored parts of blocks that have some, by block index."""
    parts = [
        BlockParts(block.block.index, block.data, block.sidecar)
        for block in blocks
        if block.data is not None and block.sidecar is not None
    ]
    return tuple(sorted(parts, key=lambda part: part.index))


def hash_ranges(data_type: DataType, parts: Sequence[BlockParts]) -> list[tuple[int, int]]:
    """Ranges (first, last) of hashes to call `find_duplicates` with; none if there is nothing to find.

    A single block has no duplicates any more, but items may be redefined in it.
    """
    rows = sum(part.data.rows for part in parts)
    if len(parts) < 2 and (data_type == "interactions" or rows < 2):
        return []
    count = max(1, -(-rows // RANGE_ROWS))
    edges = [2**64 * i // count for i in range(count + 1)]
    return [(first, after - 1) for first, after in pairwise(edges)]


def find_duplicates(
    config: StoreConfig, spec: UploadSpec, parts: Sequence[BlockParts], hash_range: tuple[int, int]
) -> Duplicates:
    """The duplicates among rows that hash into a range; items go by the hash of their item_id.

    Args:
        parts: Those of all blocks, by index.
        hash_range: First and last hash, both included.
    """
    store = open_store(config)
    hashed = _read_hashes(store, spec, parts, hash_range)
    suspects = np.flatnonzero(_repeated(hashed.row))
    rows = _read_rows(store, spec, parts, hashed, suspects)
    first = first_rows(rows.select(_contract(spec)), hashed.row[suspects])
    later = first != np.arange(first.size)
    numbers = rows.column("row_number").to_numpy()
    places = rows.select(["block", *PLACE]).filter(pa.array(later))
    places = places.append_column("duplicate_of", pa.array(numbers[first[later]], pa.int64()))
    if spec.data_type == "interactions":
        return Duplicates(places)
    alive = np.ones(hashed.row.size, np.bool_)
    alive[suspects[later]] = False
    alive_rows = np.flatnonzero(alive)
    again = alive_rows[first_hashes(hashed.key[alive]) != np.arange(alive_rows.size)]
    samples = _read_rows(store, spec, parts, hashed, again[:SAMPLES]).column("item_id").to_pylist()
    return Duplicates(places, again.size, tuple(samples))


def count_duplicates(config: StoreConfig, found: Duplicates) -> DuplicateCounts:
    """The counts of what one range gave."""
    blocks = frozenset(pc.unique(found.rows.column("block")).to_pylist())
    return DuplicateCounts(blocks, found.redefined, found.redefined_samples)


def drop_duplicates(
    config: StoreConfig, spec: UploadSpec, block: BlockResult, attempt: str, *found: Duplicates
) -> BlockResult:
    """Rewrites a block's data without later copies, and its rejects with them.

    Rejects beyond MAX_REJECT_BYTES are only counted, as in any block.

    Args:
        attempt: Names this attempt; different from that which wrote the block.
        found: The duplicates of every range.
    """
    pieces = [part.of_block(block.block.index) for part in found]
    rows = pa.concat_tables([PLACES.empty_table(), *pieces]).sort_by("row_number")
    if block.data is None or rows.num_rows == 0:
        return block
    store = open_store(config)
    name = part_name(spec, block.block, attempt)
    table = read_part(store, block.data.key)
    kept = table.filter(pa.array(~np.isin(table.column("row_number"), rows.column("row_number"))))
    data = None
    if kept.num_rows:
        data = write_part(store, f"{spec.part_prefix}{name}", kept, stats=STATS[spec.data_type])
    failure = rejects.duplicates(
        rows.column("row_number").to_numpy() - block.block.first_row, rows.column("duplicate_of").to_numpy()
    )
    later = reject_table(spec, block.block, _Placed(block.block.first_row, rows), [failure])
    earlier = [_redirected(read_part(store, part.key), rows) for part in block.rejects]
    told = pa.concat_tables([*earlier, later]).sort_by("row_number")
    doubled = told.filter(pc.equal(told.column("code"), "DUPLICATE")).slice(0, SAMPLES)
    findings = block.findings.with_duplicates(rows.num_rows, samples_of(doubled))
    kept_rows = rejects.rows_to_keep(told)
    if left_out := told.num_rows - kept_rows:
        findings = findings.with_warning("REJECTS_LEFT_OUT", "", left_out)
    return replace(
        block,
        data=data,
        sidecar=block.sidecar if data is not None else None,
        rejects=(write_part(store, f"{spec.rejects_prefix}{name}", told.slice(0, kept_rows)),),
        findings=findings,
    )


def _redirected(told: pa.Table, rows: pa.Table) -> pa.Table:
    """Rejects of a block in which copies of a row that goes now name the row that stays."""
    gone = rows.column("row_number").to_numpy()
    named = told.column("duplicate_of").fill_null(-1).to_numpy()
    changed = np.flatnonzero(np.isin(named, gone))
    if changed.size == 0:
        return told
    stays = rows.column("duplicate_of").to_numpy()[np.searchsorted(gone, named[changed])]
    mask = np.zeros(told.num_rows, np.bool_)
    mask[changed] = True
    for name, values in (
        ("duplicate_of", pa.array(stays)),
        ("message", rejects.duplicates(changed, stays).messages),
    ):
        place = told.column_names.index(name)
        column = pc.replace_with_mask(told.column(name).combine_chunks(), pa.array(mask), values)
        told = told.set_column(place, name, column)
    return told


@dataclass(frozen=True)
class _Hashed:
    """Rows of a range, by row_number: their part, their place in its sidecar, their hashes."""

    part: np.ndarray
    place: np.ndarray
    row: np.ndarray
    key: np.ndarray


def _contract(spec: UploadSpec) -> list[str]:
    return [column.name for column in describe(spec.data_type).columns]


def _read_hashes(
    store: ObjectStore, spec: UploadSpec, parts: Sequence[BlockParts], hash_range: tuple[int, int]
) -> _Hashed:
    pieces = []
    for number, part in enumerate(parts):
        table = read_part(store, part.sidecar.key, ["row_hash"] + ["key_hash"] * (spec.data_type == "items"))
        rows, keys = table.column(0).to_numpy(), table.column(-1).to_numpy()
        first, last = np.uint64(hash_range[0]), np.uint64(hash_range[1])
        inside = np.flatnonzero((keys >= first) & (keys <= last)).astype(np.int32)
        pieces.append((np.full(inside.size, number, np.int32), inside, rows[inside], keys[inside]))
    return _Hashed(*(np.concatenate(column) for column in zip(*pieces, strict=True)))


def _repeated(hashes: np.ndarray) -> np.ndarray:
    """Whether each hash comes more than once."""
    first = first_hashes(hashes)
    later = first != np.arange(first.size)
    repeated: np.ndarray = later.copy()
    repeated[first[later]] = True
    return repeated


def _read_rows(
    store: ObjectStore, spec: UploadSpec, parts: Sequence[BlockParts], hashed: _Hashed, chosen: np.ndarray
) -> pa.Table:
    """Contract columns, block, row_number, line and byte_offset of some rows, in their order."""
    tables = []
    for number in np.unique(hashed.part[chosen]).tolist():
        part = parts[number]
        places = hashed.place[chosen[hashed.part[chosen] == number]]
        sidecar = read_part(store, part.sidecar.key, [*PLACE])
        sidecar = sidecar.take(pa.array(places))
        data = read_part(store, part.data.key, [*_contract(spec), "row_number"])
        numbers = data.column("row_number").to_numpy()
        order = np.argsort(numbers)
        found = order[np.searchsorted(numbers, sidecar.column("row_number").to_numpy(), sorter=order)]
        table = data.select(_contract(spec)).take(pa.array(found))
        table = table.append_column("block", pa.array(np.full(places.size, part.index, np.int64)))
        for name in sidecar.column_names:
            table = table.append_column(name, sidecar.column(name))
        tables.append(table)
    if not tables:
        kinds = SCHEMAS[spec.data_type]
        return pa.schema([*(kinds.field(name) for name in _contract(spec)), *PLACES]).empty_table()
    return pa.concat_tables(tables).combine_chunks()


@dataclass(frozen=True)
class _Placed:
    """Records of which only the places are known; see Records."""

    first_row: int
    rows: pa.Table

    def values(self, column: str, rows: np.ndarray, limit_bytes: int = 0) -> pa.StringArray:
        return pa.array([""] * rows.size, pa.string())

    def raw(self, rows: np.ndarray) -> pa.StringArray:
        return pa.nulls(rows.size, pa.string())

    def lines(self, rows: np.ndarray) -> pa.Int64Array:
        return self._at("line", rows)

    def offsets(self, rows: np.ndarray) -> pa.Int64Array:
        return self._at("byte_offset", rows)

    def _at(self, column: str, rows: np.ndarray) -> pa.Int64Array:
        places = np.searchsorted(self.rows.column("row_number").to_numpy(), rows + self.first_row)
        return self.rows.column(column).take(pa.array(places)).combine_chunks()
