"""How much memory there is, when it has run out, and keeping what was freed for the next map."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

_ALLOCATION_FAILED = ("DefaultCPUAllocator", "not enough memory", "out of memory", "ALLOC_FAILED")
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX = -3, -1, -8  # of glibc's mallopt


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, as Python, CUDA, the CPU allocator and MPS say it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        text in str(error) for text in _ALLOCATION_FAILED
    )


def free_bytes(device: torch.device) -> int:
    """Memory that a tile may use."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    free = int(psutil.virtual_memory().available)
    return min(free, _free_in_container(free)) + _kept()


def keep_freed_memory() -> None:
    """Have the C library keep memory that is freed, for the next map, in this whole process.

    By itself glibc gives maps of features back to the system and gets them again a layer later,
    every page zeroed by a page fault. Measured on 2 cores, paper-size mprnet-mscam at 320x176:
    790,000 faults a picture before, none after, and 2.3 s of system time in 20 s of work. What is
    kept counts as free (`free_bytes`). Elsewhere than on glibc nothing happens.
    """
    library = _glibc()
    if library is None:
        return
    # One without the other is worse than none: either ends the adaptive threshold, and with maps
    # from mmap there are 8 million faults. Older versions take up to 32 MiB.
    if library.mallopt(_MMAP_THRESHOLD, 1 << 30) or library.mallopt(_MMAP_THRESHOLD, 1 << 25):
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
    # A thread's own arena holds no map over 64 MiB, which then comes from mmap. Two windows of
    # maxim in two threads: 990,000 faults and 3.4 GB before, 240,000 and 2.4 GB with one arena.
    library.mallopt(_ARENA_MAX, 1)


def _free_in_container(otherwise: int) -> int:
    """What the limit of a container leaves (control groups, version 2), if there is one."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # none, or "max"
        return otherwise
    return max(0, limit - used)


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _kept() -> int:
    """Bytes that the C library keeps for this process, and that are in memory."""
    library = _glibc()
    if library is None or not hasattr(library, "mallinfo2"):  # before 2.33
        return 0
    library.mallinfo2.restype = _Mallinfo2
    return min(int(library.mallinfo2().fordblks), int(psutil.Process().memory_info().rss))


@cache
def _glibc() -> Any:
    """The C library if it is glibc, else None."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
