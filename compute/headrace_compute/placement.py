"""Why workers are not there: no room for them, a node that cannot start them, or one of other versions."""

from typing import Any

from headrace_compute.cluster import free_cpus, resources, versions


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
