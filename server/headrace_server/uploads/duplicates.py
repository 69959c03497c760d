"""Duplicates across blocks: searched and dropped by the workers, a range of hashes at a time."""

import asyncio
import functools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from headrace_compute.block_result import BlockResult
from headrace_compute.findings import Findings
from headrace_compute.model import UploadSpec
from headrace_compute.pool import Pool
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


async def settle_duplicates(pool: Pool, spec: UploadSpec, blocks: Sequence[BlockResult]) -> Settled:
    """Drops every later copy of a row; blocks that hold some are rewritten under new names.

    Nothing is recorded: after a crash the same search finds the same rows.
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
    findings = functools.reduce(Findings.merge, (block.findings for block in settled), Findings())
    if found.redefined:
        findings = findings.with_warning(
            "ITEM_REDEFINED", "item_id", found.redefined, found.redefined_samples
        )
    return Settled(settled, findings)
