"""Ingest: one block from raw records to stored parts and findings."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from headrace_compute.delta.layout import STATS
from headrace_compute.errors import StoreFullError
from headrace_compute.findings import CheckFindings, Findings, unknown_columns
from headrace_compute.formats.records import Records
from headrace_compute.ingest.accepted import data_order, data_table, sidecar_table
from headrace_compute.ingest.block_result import BlockResult
from headrace_compute.ingest.columns import summarise
from headrace_compute.ingest.examine import Examined, examine
from headrace_compute.ingest.parse import Failure
from headrace_compute.ingest.rejects import KeptRejects, check_findings
from headrace_compute.model import Block, Part, StoreConfig, UploadSpec
from headrace_compute.objects.store import open_store
from headrace_compute.parts import write_part, write_pieces


def ingest_block(
    config: StoreConfig,
    spec: UploadSpec,
    block: Block,
    payload: np.ndarray | pa.Table | bytes,
    attempt: str,
) -> BlockResult:
    """Parses and validates a block and stores its accepted rows and its rejects.

    Duplicates are dropped within the block only; `duplicates.py` finds the others.

    Args:
        payload: As `parse` takes it.
        attempt: Names this attempt; parts of different attempts have different keys.

    Raises:
        InvalidFieldError: A json payload is no JSON array.
        StoreFullError: There is no room; what this attempt had stored is gone again.
    """
    examined = examine(spec, block, payload)
    try:
        return _store(config, spec, block, examined, part_name(spec, block, attempt))
    except StoreFullError:
        delete_attempt(config, spec, block, attempt)
        raise


def delete_attempt(config: StoreConfig, spec: UploadSpec, block: Block, attempt: str) -> None:
    """Deletes what one attempt at a block has stored; nothing may name it."""
    store, name = open_store(config), part_name(spec, block, attempt)
    for prefix in (spec.part_prefix, spec.sidecar_prefix, spec.rejects_prefix):
        store.delete(f"{prefix}{name}")


def _store(config: StoreConfig, spec: UploadSpec, block: Block, examined: Examined, name: str) -> BlockResult:
    store = open_store(config)
    data = sidecar = None
    rejects: tuple[Part, ...] = ()
    if examined.keep.size:
        order = data_order(examined)
        upload_ids = _constant(spec.upload_id, order.size)
        rows = data_table(examined, order, upload_ids, block.first_row + order, spec.started_us)
        data = write_part(store, f"{spec.part_prefix}{name}", rows, stats=STATS[spec.data_type])
        sidecar = write_part(store, f"{spec.sidecar_prefix}{name}", sidecar_table(spec, block, examined))
    findings = findings_of(spec, block, examined)
    if examined.failures:
        kept = KeptRejects(spec, block, examined.parsed.records, examined.failures)
        rejects = (write_pieces(store, f"{spec.rejects_prefix}{name}", kept),)
        if kept.left_out:
            findings = findings.with_warning("REJECTS_LEFT_OUT", "", kept.left_out)
    return BlockResult(block=block, data=data, sidecar=sidecar, rejects=rejects, findings=findings)


def part_name(spec: UploadSpec, block: Block, attempt: str) -> str:
    """What a block's parts are called, below the prefixes of the spec."""
    return f"{spec.upload_id}-{block.index:06d}-{attempt}.parquet"


def findings_of(spec: UploadSpec, block: Block, examined: Examined) -> Findings:
    """What a block's report needs to know of it."""
    parsed = examined.parsed
    received, kept = parsed.table.num_rows, examined.keep.size
    return Findings(
        received=received,
        rejected=received - kept,
        duplicates=examined.doubled.size,
        unreadable=int(parsed.unreadable.sum()),
        checks=_checks(block, parsed.records, examined.failures),
        columns=summarise(spec.data_type, examined),
        warnings=unknown_columns(parsed.unknown, parsed.unnamed),
    )


def _checks(
    block: Block, records: Records, failures: Sequence[Failure]
) -> dict[tuple[str, str], CheckFindings]:
    """Failures by column and code: two rules may share a code, as BAD_TEXT does."""
    checks: dict[tuple[str, str], CheckFindings] = {}
    for failure in failures:
        key, found = (failure.column, failure.code), check_findings(block, records, failure)
        checks[key] = checks[key].merge(found) if key in checks else found
    return checks


def _constant(text: str, count: int) -> pa.DictionaryArray:
    """A column of one repeated text, dictionary-encoded so that it is cheap to write."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text], pa.string()))
