"""The process's heap, kept from growing with the time a stream takes.

glibc raises its thresholds when it sees large buffers come and go, and from then
on keeps what they leave behind. Blocks and messages are just such buffers:
measured over 10 M rows the server kept some 100 MiB more than with fixed thresholds.
"""

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def bound_heap() -> None:
    """Fixes malloc's thresholds; does nothing where malloc is not glibc's. Call it before threads start."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 20)
    mallopt(_M_TRIM_THRESHOLD, 128 << 10)
    mallopt(_M_ARENA_MAX, 2)
