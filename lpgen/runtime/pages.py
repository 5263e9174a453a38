"""Files in memory that lie in huge pages."""

import ctypes
import mmap
import os

HUGE = 2**21
"""Bytes of a huge page where the usual ones have 4 KiB."""

LEAST = 2 * HUGE
"""Bytes of a file from which on its pages are worth the milliseconds."""

_COLLAPSE = 25
"""MADV_COLLAPSE of linux/mman.h, since Linux 6.1; Python knows no name for it."""

_FIXED = 0x10
"""MAP_FIXED of linux/mman.h."""


def in_huge_pages(file: int, nbytes: int) -> bool:
    """Ask for huge pages below `nbytes` that were written to a memory file; whether they are there.

    Single pages lie anywhere in memory: of more than some megabytes the CPU does not know all
    addresses at a time (a Zen 4 core 3072 pages, 12 MiB), and some sets of the L2 cache get more
    lines than others. The file is longer afterwards, by zeros up to a whole page. Where Linux has
    no such call, or no free huge page, all stays as it is.
    """
    if nbytes < LEAST:
        return False
    size = -(-nbytes // HUGE) * HUGE
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    # As much address space as holds the file on a boundary of huge pages; it maps there.
    room = _map(libc, None, size + HUGE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
    if room is None:
        return False
    try:
        place = -(-room // HUGE) * HUGE
        os.ftruncate(file, size)
        shown = mmap.PROT_READ | mmap.PROT_WRITE
        if _map(libc, place, size, shown, mmap.MAP_SHARED | _FIXED, file) is None:
            return False
        return _call(libc.madvise, place, size, ctypes.c_int(_COLLAPSE)) == 0
    finally:
        _call(libc.munmap, room, size + HUGE)


def _map(libc, place: int | None, size: int, access: int, flags: int, file: int) -> int | None:
    rest = (ctypes.c_int(access), ctypes.c_int(flags), ctypes.c_int(file), ctypes.c_long(0))
    found = _call(libc.mmap, place, size, *rest)
    return None if found == ctypes.c_void_p(-1).value else found


def _call(function, place: int | None, size: int, *rest):
    return function(ctypes.c_void_p(place), ctypes.c_size_t(size), *rest)
