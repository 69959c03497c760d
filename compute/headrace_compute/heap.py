"""glibc's heap settings: a server returns memory to the system at once, a worker keeps it between blocks."""

import asyncio
import ctypes
import gc
from pathlib import Path

import psutil

GIVE_BACK_SECONDS = 5.0
SLACK_BYTES = 32 << 20
"""What a server may have beyond what it started with before that is looked through."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MADV_DONTNEED = 4


def bound_heap() -> None:
    """Gives large buffers back at once. Call it before threads start.

    glibc raises its thresholds when it sees large buffers come and go, and from then
    on keeps what they leave behind. Blocks and messages are just such buffers:
    measured over 10 M rows the server kept some 100 MiB more than with fixed thresholds.
    A few messages' room is kept: without it the kernel cleared 50,000 to 190,000 pages anew
    while 10 M rows came in, with it 30,000.
    """
    _set({_M_MMAP_THRESHOLD: 1 << 20, _M_TRIM_THRESHOLD: 4 << 20, _M_ARENA_MAX: 2})


def keep_heap() -> None:
    """Keeps what a block's arrays took for the next block's.

    Else the kernel takes the pages back and clears them again, which was a tenth of
    a block's time, for 13 MiB less at the peak.
    """
    _set({_M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 128 << 20})


async def give_back() -> None:
    """Goes on giving back what lies free between buffers in use, where it is much; until cancelled.

    A flood of uploads leaves 300 MiB of such holes, some of them in cycles of calls that were given up.
    Objects that the program has made by now are left out of later collections: they stay, and to walk
    through them takes a tenth of a second.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is None:
        return
    gc.collect()
    gc.freeze()
    usual_bytes = _own_bytes()
    while True:
        await asyncio.sleep(GIVE_BACK_SECONDS)
        if _own_bytes() > usual_bytes + SLACK_BYTES:
            gc.collect()
            await asyncio.to_thread(malloc_trim, 0)


def release_code(library: str) -> None:
    """Unmaps the code of a library that has done its work; the pages come back if it is called again.

    LLVM runs only while kernels are loaded, and leaves 51 MiB of its code resident. The
    file stays in the system's page cache, where other processes share it: what shrinks is this process.
    """
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    maps = Path("/proc/self/maps")
    if madvise is None or not maps.exists():
        return
    for line in maps.read_text().splitlines():
        bounds, rights, *rest = line.split(maxsplit=5)
        # Code is never written to, so its pages are the file's; data pages would be lost.
        if rights == "r-xp" and library in rest[-1]:
            start, end = (int(bound, 16) for bound in bounds.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def _own_bytes() -> int:
    """Resident memory that is this process's alone."""
    found = psutil.Process().memory_info()
    return int(found.rss - found.shared)


def _set(options: dict[int, int]) -> None:
    """Does nothing where malloc is not glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
