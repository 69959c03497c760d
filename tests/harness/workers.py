"""Workers in this process that take their time."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from headrace_compute.inputs.workers import InProcess
from headrace_compute.model import StoreConfig


class Unordered(InProcess):
    """Stages begin and end in any order, as on many workers."""

    def __init__(self, config: StoreConfig, seed: int) -> None:
        super().__init__(config)
        self._random = random.Random(seed)

    async def run(self, stage: Any, *args: Any) -> Any:
        await asyncio.sleep(self._random.random() / 100)
        found = await super().run(stage, *args)
        await asyncio.sleep(self._random.random() / 100)
        return found

    async def hold_each(self, count: int, stage: Any, *args: Any) -> Sequence[Any]:
        await asyncio.sleep(self._random.random() / 100)
        return await super().hold_each(count, stage, *args)
