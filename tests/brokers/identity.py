"""Which process a pid meant: a pid alone may be another's by now."""

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """A pid and its process's start, in clock ticks since the machine's; no two processes share both."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity":
        """The process that has this pid now; raises ProcessLookupError if none runs."""
        ticks = _start_ticks(pid)
        if ticks is None:
            raise ProcessLookupError(f"no process {pid} runs")
        return cls(pid, ticks)

    def runs(self) -> bool:
        """Whether this very process still runs."""
        return _start_ticks(self.pid) == self.start_ticks

    def end(self, seconds: float) -> bool:
        """Asks the process to end (SIGTERM), then makes it (SIGKILL after `seconds`), and waits.

        Returns whether there was anything to end: another process with the pid is left alone.
        """
        try:
            # From here on the descriptor means this process, even if the pid is given to another meanwhile.
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.runs():
                return False
            for number in (signal.SIGTERM, signal.SIGCONT):  # a paused process takes no SIGTERM
                signal.pidfd_send_signal(descriptor, number)
            if not _ended(descriptor, seconds):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                _ended(descriptor, None)
            return True
        except ProcessLookupError:  # it ended by itself between two lines
            return True
        finally:
            os.close(descriptor)


def _ended(descriptor: int, seconds: float | None) -> bool:
    # Not select(): it knows no descriptor above 1,023.
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    readable = ready.poll(None if seconds is None else seconds * 1000)
    return bool(readable)


def _start_ticks(pid: int) -> int | None:
    """When the process started, or None if there is none or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # `pid (name) state ...`, see proc(5). The name may hold brackets and spaces. Start time is field 22.
    state, *fields = stat[stat.rindex(")") + 1 :].split()
    return None if state in "ZX" else int(fields[18])
