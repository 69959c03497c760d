"""Where workers may be, and why they are not: no room, other versions, a node that cannot start them."""

from dataclasses import dataclass
from typing import Any

from headrace_compute.workers.cluster import address_here, cpus_at, free_cpus, resources, versions

SHARE = 0.001
"""What an actor takes of its node's address, which Ray counts as a resource of which there is one."""


@dataclass(frozen=True)
class Site:
    """Where workers may be.

    Attributes:
        address: That of the only host where the tables are; empty where every host finds them.
    """

    address: str

    @classmethod
    def of(cls, *, store_is_shared: bool) -> "Site":
        """Anywhere, or on this host alone; blocks."""
        return cls("" if store_is_shared else address_here())

    def demands(self) -> dict[str, float]:
        """The resources by which Ray starts an actor nowhere else."""
        return {f"node:{self.address}": SHARE} if self.address else {}

    def fitting(self, cpus: float) -> int:
        """How many workers of so many CPUs there is room for, or nodes if they take none; blocks."""
        there = cpus_at(self.address)
        return int(sum(there.values()) / cpus) if cpus else len(there)

    def unused(self) -> str:
        """Says which nodes cannot be used; empty if all can, blocks."""
        others = len(cpus_at("")) - len(cpus_at(self.address))
        if not others:
            return ""
        return (
            f"{others} of the cluster's nodes are on other hosts and get no work: tables lie in "
            f"HEADRACE_DATA_DIR on {self.address}; set S3_ENDPOINT, S3_ACCESS_KEY and S3_SECRET_KEY to use "
            "them."
        )


def shortage(missing: int, wanted: int, cpus: float, fault: str) -> str:
    """Says why workers are not there, and what to do about it; blocks.

    Args:
        missing: How many are not.
        wanted: How many there should be.
        cpus: What each takes of the cluster's CPUs.
        fault: What kept one from starting, as far as that is known; a sentence.
    """
    said = f"{wanted - missing} of {wanted} workers ready"
    if fault:
        return f"{said}: {fault}"
    free, total = free_cpus(), resources().get("CPU", 0)
    there = f"the cluster has {free:g} of {total:g} CPUs free"
    if free < cpus:
        return (
            f"{said}: {there}, and a worker takes {cpus:g}; lower HEADRACE_WORKERS or HEADRACE_WORKER_CPUS, "
            "or add a node."
        )
    return (
        f"{said}, though {there}: are its nodes short of memory, or busy? Ray's logs on them tell, and "
        "HEADRACE_START_SECONDS gives them longer."
    )


def mismatch(found: Any) -> str:
    """Says which versions of a worker are not ours; empty if all are.

    Args:
        found: What the worker has told of itself, which is anything if its version is another.
    """
    ours = versions()
    theirs = found if isinstance(found, dict) else {"headrace-compute": "of another version"}
    wrong = {name: str(theirs[name]) for name in ours if name in theirs and theirs[name] != ours[name]}
    if not wrong:
        return ""
    return (
        f"The Ray node {theirs.get('address', 'of a worker')} has {_listed(wrong)}, this server "
        f"{_listed({name: ours[name] for name in wrong})}; install the same on every node and start Ray on "
        "it again."
    )


def _listed(named: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in named.items())
