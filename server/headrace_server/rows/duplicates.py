"""Duplicates across blocks: searched and dropped by the workers, a range of hashes at a time.

What is found stays with the workers: of an upload that was sent twice it is a row for each of its rows.
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import cast

from headrace_compute.findings import SAMPLES, Findings
from headrace_compute.ingest.block_result import BlockResult
from headrace_compute.ingest.duplicates import (
    DuplicateCounts,
    Duplicates,
    count_duplicates,
    drop_duplicates,
    find_duplicates,
    hash_ranges,
    parts_of,
)
from headrace_compute.model import UploadSpec
from headrace_compute.workers.pool import Executor


@dataclass(frozen=True)
class Settled:
    """Blocks without duplicates across them, and what validation found in all of them."""

    blocks: tuple[BlockResult, ...]
    findings: Findings


async def settle_duplicates(
    pool: Executor, spec: UploadSpec, blocks: Sequence[BlockResult], findings: Findings
) -> Settled:
    """Drops every later copy of a row; blocks that hold some are rewritten under new names.

    Nothing is recorded: after a crash the same search finds the same rows.

    Args:
        blocks: All of a stream; of their own findings only the counts are used.
        findings: Those of all blocks together.
    """
    parts = parts_of(blocks)
    ranges = hash_ranges(spec.data_type, parts)
    held = await asyncio.gather(*(pool.hold(find_duplicates, spec, parts, span) for span in ranges))
    found = cast("list[Duplicates]", held)  # Stages get what is held.
    counts = reduce(
        DuplicateCounts.merge,
        await asyncio.gather(*(pool.run(count_duplicates, each) for each in found)),
        DuplicateCounts(),
    )
    attempt = uuid.uuid4().hex[:12]

    async def settle(block: BlockResult) -> BlockResult:
        if block.block.index not in counts.blocks:
            return block
        return await pool.run(drop_duplicates, spec, block, attempt, *found)

    settled = tuple(await asyncio.gather(*map(settle, blocks)))
    findings = _recounted(findings, blocks, settled)
    if counts.redefined:
        findings = findings.with_warning(
            "ITEM_REDEFINED", "item_id", counts.redefined, counts.redefined_samples
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
    findings = findings.with_duplicates(count, samples[:SAMPLES])
    left_out = sum(_left_out(new) - _left_out(old) for old, new in rewritten)
    return findings.with_warning("REJECTS_LEFT_OUT", "", left_out) if left_out else findings


def _left_out(block: BlockResult) -> int:
    told = block.findings.warnings.get(("REJECTS_LEFT_OUT", ""))
    return told.count if told is not None else 0
