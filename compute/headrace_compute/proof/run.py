"""The driver of a proof: the version is digested first, then derived again, and compared as rows come."""

from collections.abc import Awaitable, Callable, Sequence

from headrace_compute.inputs.workers import Progress, Workers, each
from headrace_compute.model import DataFile
from headrace_compute.proof.check import Checked, CheckSink, first_of, missing_section
from headrace_compute.proof.difference import Difference
from headrace_compute.proof.digest import Section
from headrace_compute.proof.stored import StoredSection, gather_sections, read_fragments

Derive = Callable[[CheckSink], Awaitable[Sequence[Checked]]]
"""Makes the rows of a version again, into a sink; returns what that made of them."""


async def prove(
    workers: Workers, kind: str, files: Sequence[DataFile], derive: Derive, progress: Progress
) -> Difference | None:
    """Looks whether a version has the rows that are derived, in their order, bit for bit.

    Args:
        workers: Where stages run.
        kind: What the table holds.
        files: Those of the version.
        derive: Makes its rows again.
        progress: Told of every file that is digested; `derive` tells of its steps by itself.

    Returns:
        The first difference, by bucket, split and row; None if there is none.

    Raises:
        PartLostError: A file of the version, or what derives it reads, is gone.
    """
    reading = [workers.hold(read_fragments, file.key, kind) for file in files]
    fragments = await each("stored", reading, progress)
    stored: dict[Section, StoredSection] = {}
    if fragments:
        stored = await workers.run(gather_sections, kind, *fragments)
    workers.let_go(fragments)
    checked = await derive(CheckSink(kind, stored))
    derived = frozenset[Section]().union(*(some.sections for some in checked))
    found = first_of(some.difference for some in checked)
    missing = min(stored.keys() - derived, default=None)
    if missing is not None and (found is None or missing < found.section):
        found = await workers.run(missing_section, kind, missing, stored[missing])
    return found
