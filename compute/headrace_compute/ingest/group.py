"""Small ingests: a group of them validated at once, stored in one part, reported on one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace_compute.delta.layout import STATS
from headrace_compute.errors import StoreFullError
from headrace_compute.ingest.accepted import data_order, data_table
from headrace_compute.ingest.examine import UploadRows, examine
from headrace_compute.ingest.group_reports import RowGroup, rejects_of, reports_of
from headrace_compute.model import Block, DataType, Part, StoreConfig, UploadSpec
from headrace_compute.objects.store import ObjectStore, open_store
from headrace_compute.parts import read_part, verify_part, write_part
from headrace_compute.report import Report

RowFormat: TypeAlias = Literal["rows", "json_lines"]
"""How the rows of a group came: as messages, or as JSON objects."""


@dataclass(frozen=True)
class GroupSpec:
    """What a group of small ingests shares.

    Attributes:
        id: A UUID; names the parts.
        data_prefix, published_prefix, unpublished_prefix: Key prefixes of the three parts.
        started_us: The rows' `ingested_at`.
        latest_us: Timestamps later than this are FUTURE_TIMESTAMP.
        format: Of the rows; all uploads of a group have one.
    """

    id: str
    data_type: DataType
    data_prefix: str
    published_prefix: str
    unpublished_prefix: str
    started_us: int
    latest_us: int
    format: RowFormat = "rows"


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
    config: StoreConfig, spec: GroupSpec, uploads: Sequence[tuple[str, int]], payload: pa.Table | bytes
) -> GroupResult:
    """Validates a group and stores its accepted rows and its rejects; parts are read back and verified.

    Equal arguments give equal parts, so the stage may be repeated.

    Args:
        uploads: upload_id and number of rows of each.
        payload: The rows of all, as `parse` takes them in the group's format.

    Raises:
        StoreFullError: Nothing was stored.
        StoreUnavailableError: A part is not what was written.
    """
    group = _examine(spec, UploadRows.of(uploads), payload)
    store = open_store(config)
    try:
        return _stored(store, spec, group)
    except StoreFullError:
        # What was written before the room ran out would take it from whoever tries again.
        for prefix in (spec.data_prefix, spec.published_prefix, spec.unpublished_prefix):
            store.delete(f"{prefix}{spec.id}.parquet")
        raise


def _stored(store: ObjectStore, spec: GroupSpec, group: RowGroup) -> GroupResult:
    """Writes the parts of a group that was examined."""
    owner, keep = group.uploads.owner, group.examined.keep
    data = None
    if keep.size:
        data = write_part(
            store, f"{spec.data_prefix}{spec.id}.parquet", _data(spec, group), stats=STATS[spec.data_type]
        )
        verify_part(store, data)
    published = unpublished = None
    if group.examined.failures:
        rejects = rejects_of(group, group.examined.failures)
        accepted = np.isin(rejects.owner, owner[keep])
        published = _write_rejects(
            store, f"{spec.published_prefix}{spec.id}.parquet", rejects.table, accepted
        )
        unpublished = _write_rejects(
            store, f"{spec.unpublished_prefix}{spec.id}.parquet", rejects.table, ~accepted
        )
    return GroupResult(data, published, unpublished, reports_of(group))


def read_upload_rejects(
    config: StoreConfig, key: str, upload_id: str, limit: int | None = None
) -> list[dict[str, Any]]:
    """One upload's rows in a part of rejects, in order of row_number, as plain values; at most `limit`."""
    table = read_part(open_store(config), key)
    table = table.filter(pc.equal(table.column("upload_id"), upload_id))
    rows: list[dict[str, Any]] = table.slice(0, limit).to_pylist()
    return rows


def _examine(spec: GroupSpec, uploads: UploadRows, payload: pa.Table | bytes) -> RowGroup:
    """The rows of all uploads as if they were one block, without lines of its own."""
    rows = uploads.owner.size
    upload = UploadSpec("", spec.data_type, "", "", "", spec.started_us, spec.latest_us)
    block = Block(0, spec.format, 0, rows, 0, rows, 0)
    return RowGroup(uploads, block, upload, examine(upload, block, payload, uploads))


def _data(spec: GroupSpec, group: RowGroup) -> pa.Table:
    """The accepted rows of all uploads as the data table has them."""
    order, uploads = data_order(group.examined), group.uploads
    upload_ids = uploads.ids.take(pa.array(uploads.owner[order]))
    return data_table(group.examined, order, upload_ids, uploads.number[order], spec.started_us)


def _write_rejects(store: ObjectStore, key: str, table: pa.Table, wanted: np.ndarray) -> Part | None:
    if not wanted.any():
        return None
    part = write_part(store, key, table.filter(pa.array(wanted)))
    verify_part(store, part)
    return part
