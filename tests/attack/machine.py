"""What else the machine does: a neighbour's waits tell of the server only where others leave it the cores."""

import time
from contextlib import suppress

import psutil


class Others:
    """Processor time that everybody else takes, from its making on."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._before = self._taken()

    def cores(self) -> float:
        """How many cores others kept busy on average."""
        return max(0.0, self._taken() - self._before) / (time.monotonic() - self._started)

    @staticmethod
    def _taken() -> float:
        """Seconds taken by all processes but this one and what it started, so far."""
        machine, own, mine = psutil.cpu_times(), 0.0, psutil.Process()
        for process in (mine, *mine.children(recursive=True)):
            with suppress(psutil.Error):
                own += sum(process.cpu_times()[:4])
        return float(machine.user + machine.nice + machine.system - own)
