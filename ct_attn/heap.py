"""Memory of the processor kept from one training step to the next, in large pages."""

from __future__ import annotations

import ctypes
import mmap
import os

#: glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_HUGE_PAGE = 2 << 20


def keep_freed_memory(share: float = 0.5) -> bool:
    """Let this process reuse what tensors on the processor free, and ask for large pages.

    By default the C library hands every large block back to the system when it is freed,
    so each step's activations are new pages, to be cleared and mapped one by one; that
    takes as long as the arithmetic. Numbers are not changed. From now on the process
    holds its peak until it ends. ``share`` of the machine's memory is set aside as
    addresses; none of it is taken before it is used. Where the C library is not glibc on
    Linux nothing happens; the answer says whether anything did.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt, malloc, free, madvise = libc.mallopt, libc.malloc, libc.free, libc.madvise
        advice = mmap.MADV_HUGEPAGE
    except (OSError, AttributeError):
        return False
    # No block of its own for any size, and nothing given back from the end of the heap.
    if not (mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1)):
        return False
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    free.argtypes = [ctypes.c_void_p]
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = int(share * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    block = malloc(size)
    if block:  # where a limit refuses the addresses, pages stay small
        begin = -(-block // _HUGE_PAGE) * _HUGE_PAGE
        madvise(begin, (block + size - begin) // mmap.PAGESIZE * mmap.PAGESIZE, advice)
        free(block)
    return True
