"""The Ray actor: a process that runs stages, and nothing else."""

import os
from collections.abc import Callable
from typing import Any

import ray

from headrace_compute.model import StoreConfig


@ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=0)
class Worker:
    """Runs one stage at a time.

    Retries are the pool's business: a task whose actor died may have run to its
    end, so only the caller, who gives each attempt names of its own, may repeat it.
    """

    def __init__(self, config: StoreConfig) -> None:
        self._config = config

    def run(self, stage: Callable[..., Any], *args: Any) -> Any:
        """Calls `stage(config, *args)`; Ray resolves references among `args`."""
        return stage(self._config, *args)

    @ray.method(num_returns=2)
    def hold(self, stage: Callable[..., Any], *args: Any) -> tuple[None, Any]:
        """As `run`, with the result apart, so that it can stay in the object store."""
        return None, stage(self._config, *args)

    def warm(self) -> int:
        """Makes ready whatever the first block would wait for; returns the process id."""
        from headrace_compute.kernels import warm
        from headrace_compute.stages.warm import load

        warm()
        load()
        return os.getpid()
