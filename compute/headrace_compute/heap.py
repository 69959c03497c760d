"""The process's heap: given back at once by a server, kept from block to block by a worker."""

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def bound_heap() -> None:
    """Gives large buffers back at once. Call it before threads start.

    glibc raises its thresholds when it sees large buffers come and go, and from then
    on keeps what they leave behind. Blocks and messages are just such buffers:
    measured over 10 M rows the server kept some 100 MiB more than with fixed thresholds.
    """
    _set({_M_MMAP_THRESHOLD: 1 << 20, _M_TRIM_THRESHOLD: 128 << 10, _M_ARENA_MAX: 2})


def keep_heap() -> None:
    """Keeps what a block's arrays took for the next block's.

    Else the kernel takes the pages back and clears them again, which was a tenth of
    a block's time, for 13 MiB less at the peak.
    """
    _set({_M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 128 << 20})


def _set(options: dict[int, int]) -> None:
    """Does nothing where malloc is not glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
