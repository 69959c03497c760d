"""Small ingests: a group of them validated at once, stored in one part, reported on one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.kernels.hashing import bucket_of
from headrace_compute.kernels.rows import clustered, column_hashes, first_rows, row_hashes, validity
from headrace_compute.model import Block, DataType, Part, StoreConfig, UploadSpec
from headrace_compute.report import Report
from headrace_compute.stages.ingest import STATS
from headrace_compute.stages.parse import TIMESTAMP, parse
from headrace_compute.stages.rejects import duplicates
from headrace_compute.stages.small_reports import RowGroup, rejects_of, reports_of
from headrace_compute.stages.validate import validate
from headrace_compute.storage.parts import read_part, verify_part, write_part
from headrace_compute.storage.store import ObjectStore, open_store


@dataclass(frozen=True)
class GroupSpec:
    """What a group of small ingests shares.

    Attributes:
        id: A UUID; names the parts.
        data_prefix, published_prefix, unpublished_prefix: Key prefixes of the three parts.
        started_us: The rows' `ingested_at`.
        latest_us: Timestamps later than this are FUTURE_TIMESTAMP.
    """

    id: str
    data_type: DataType
    data_prefix: str
    published_prefix: str
    unpublished_prefix: str
    started_us: int
    latest_us: int


@dataclass(frozen=True)
class GroupResult:
    """A group, validated and stored.

    Attributes:
        data: The accepted rows of all uploads, None if there are none.
        published: Rejects of uploads that have accepted rows too.
        unpublished: Rejects of uploads that have none.
        reports: One for each upload, in order.
    """

    data: Part | None
    published: Part | None
    unpublished: Part | None
    reports: tuple[Report, ...]


def ingest_group(
    config: StoreConfig, spec: GroupSpec, uploads: Sequence[tuple[str, int]], payload: pa.Table
) -> GroupResult:
    """Validates a group and stores what is good and what is not; parts are read back before they count.

    Equal arguments give equal parts, so the stage may be repeated.

    Args:
        uploads: upload_id and number of rows of each.
        payload: The rows of all, raw, as `parse` takes them in format rows.

    Raises:
        StoreUnavailableError: A part is not what was written.
    """
    group = _examine(spec, uploads, payload)
    store = open_store(config)
    data = None
    if group.keep.size:
        data = write_part(
            store, f"{spec.data_prefix}{spec.id}.parquet", _data(spec, group), stats=STATS[spec.data_type]
        )
        verify_part(store, data)
    published = unpublished = None
    if group.failures:
        rejects = rejects_of(group, group.failures)
        accepted = np.isin(rejects.owner, group.owner[group.keep])
        published = _write_rejects(
            store, f"{spec.published_prefix}{spec.id}.parquet", rejects.table, accepted
        )
        unpublished = _write_rejects(
            store, f"{spec.unpublished_prefix}{spec.id}.parquet", rejects.table, ~accepted
        )
    return GroupResult(data, published, unpublished, reports_of(group))


def read_upload_rejects(config: StoreConfig, key: str, upload_id: str) -> list[dict[str, Any]]:
    """One upload's rows in a part of rejects, in order of row_number, as plain values."""
    table = read_part(open_store(config), key)
    rows: list[dict[str, Any]] = table.filter(pc.equal(table.column("upload_id"), upload_id)).to_pylist()
    return rows


def _examine(spec: GroupSpec, uploads: Sequence[tuple[str, int]], payload: pa.Table) -> RowGroup:
    """Parses and validates; finds each upload's duplicates among its own rows."""
    counts = np.array([count for _, count in uploads], np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    owner = np.repeat(np.arange(counts.size), counts)
    number = np.arange(owner.size) - starts[owner]
    upload = UploadSpec("", spec.data_type, "", "", "", spec.started_us, spec.latest_us)
    block = Block(0, "rows", 0, owner.size, 0, owner.size, 0)
    parsed = parse(upload, block, payload)
    places = {name: place for place, name in enumerate(["", *parsed.table.column_names])}
    failures = sorted(
        [*parsed.failures, *validate(upload, parsed)], key=lambda failure: places[failure.column]
    )
    good = np.ones(owner.size, np.bool_)
    for failure in failures:
        good[failure.rows] = False
    keep = np.flatnonzero(good)
    columns = [column.combine_chunks() for column in parsed.table.columns]
    hashes = [column_hashes(column) for column in columns]
    # The upload is a column like the others, so that rows of two uploads are never equal.
    of_upload = pa.array(owner.astype(np.float64))
    valid = [*(validity(column) for column in columns), np.ones(owner.size, np.bool_)]
    rows = row_hashes(list(zip([*hashes, column_hashes(of_upload)], valid, strict=True)))
    first = keep[first_rows(parsed.table.append_column("", of_upload).take(pa.array(keep)), rows[keep])]
    if (doubled := first != keep).any():
        failures.append(duplicates(keep[doubled], number[first[doubled]]))
        keep = keep[~doubled]
    rejected = np.unique(np.concatenate([keep[:0], *(failure.rows for failure in failures)]))
    if keep.size + rejected.size != owner.size:
        raise AssertionError(f"{owner.size} rows received, {keep.size} accepted, {rejected.size} rejected")
    ids = pa.array([upload_id for upload_id, _ in uploads], pa.string())
    return RowGroup(
        spec.data_type, ids, owner, number, starts, parsed, tuple(failures), keep, hashes[0], block, upload
    )


def _data(spec: GroupSpec, group: RowGroup) -> pa.Table:
    """The accepted rows as the data table has them, by bucket."""
    order = group.keep[clustered(group.key_hashes[group.keep])]
    table = group.parsed.table.take(pa.array(order))
    for name, values in (
        ("upload_id", group.ids.take(pa.array(group.owner[order]))),
        ("row_number", pa.array(group.number[order])),
        ("ingested_at", pa.repeat(pa.scalar(spec.started_us, TIMESTAMP), order.size)),
        ("bucket", pa.array(bucket_of(group.key_hashes[order]))),
    ):
        table = table.append_column(name, values)
    return table


def _write_rejects(store: ObjectStore, key: str, table: pa.Table, wanted: np.ndarray) -> Part | None:
    if not wanted.any():
        return None
    part = write_part(store, key, table.filter(pa.array(wanted)))
    verify_part(store, part)
    return part
