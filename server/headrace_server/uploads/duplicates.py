"""Duplicates across blocks: searched and dropped by the workers, a range of hashes at a time."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from headrace_compute.block_result import BlockResult
from headrace_compute.findings import SAMPLES, Findings
from headrace_compute.model import UploadSpec
from headrace_compute.pool import Lane
from headrace_compute.stages.duplicates import (
    drop_duplicates,
    find_duplicates,
    hash_ranges,
    merge_duplicates,
    parts_of,
)


@dataclass(frozen=True)
class Settled:
    """Blocks without duplicates across them, and what validation found in all of them."""

    blocks: tuple[BlockResult, ...]
    findings: Findings


async def settle_duplicates(
    pool: Lane, spec: UploadSpec, blocks: Sequence[BlockResult], findings: Findings
) -> Settled:
    """Drops every later copy of a row; blocks that hold some are rewritten under new names.

    Nothing is recorded: after a crash the same search finds the same rows.

    Args:
        blocks: All of a stream; of their own findings only the counts are used.
        findings: Those of all blocks together.
    """
    parts = parts_of(blocks)
    found = merge_duplicates(
        await asyncio.gather(
            *(pool.run(find_duplicates, spec, parts, span) for span in hash_ranges(spec.data_type, parts))
        )
    )
    attempt = uuid.uuid4().hex[:12]

    async def settle(block: BlockResult) -> BlockResult:
        rows = found.of_block(block.block.index)
        return await pool.run(drop_duplicates, spec, block, rows, attempt) if rows.num_rows else block

    settled = tuple(await asyncio.gather(*map(settle, blocks)))
    findings = _recounted(findings, blocks, settled)
    if found.redefined:
        findings = findings.with_warning(
            "ITEM_REDEFINED", "item_id", found.redefined, found.redefined_samples
        )
    return Settled(settled, findings)


def _recounted(findings: Findings, before: Sequence[BlockResult], after: Sequence[BlockResult]) -> Findings:
    """The findings of all blocks after some were rewritten without later copies."""
    rewritten = [(old, new) for old, new in zip(before, after, strict=True) if new is not old]
    if not rewritten:
        return findings
    told = findings.checks.get(("", "DUPLICATE"))
    spans = [range(old.block.first_row, old.block.first_row + old.block.rows) for old, _ in rewritten]
    samples = [
        sample
        for sample in (told.samples if told is not None else ())
        if not any(sample.row_number in span for span in spans)
    ]
    for _, new in rewritten:
        samples += new.findings.checks["", "DUPLICATE"].samples
    samples.sort(key=lambda reject: reject.row_number)
    count = sum(new.duplicates - old.duplicates for old, new in rewritten)
    return findings.with_duplicates(count, samples[:SAMPLES])
