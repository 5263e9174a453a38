"""Memory that starts on a cache line, or so many bytes behind one."""

import threading
from typing import Any

import numpy as np
import tvm_ffi

ALIGNMENT = 64
"""Packed weights and workspaces start on this boundary (bytes)."""


def aligned(nbytes: int, offset: int = 0) -> np.ndarray:
    """uint8[nbytes] of zeros that starts `offset` bytes behind a 64-byte boundary.

    The zeros are written: pages that nobody wrote are one page, which stays in the L1 cache.
    """
    memory = _empty(nbytes, offset)
    memory.fill(0)
    return memory


def aligned_copy(array: np.ndarray, offset: int = 0) -> np.ndarray:
    """A dense copy that starts `offset` bytes behind a 64-byte boundary."""
    copy = _empty(array.nbytes, offset).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class KeptMemory:
    """Memory that each thread keeps from call to call: fresh memory is slow."""

    def __init__(self) -> None:
        self._kept = threading.local()

    def of(self, nbytes: int) -> Any:
        """This thread's tensor of at least so many bytes, made larger where it is too small."""
        kept = getattr(self._kept, "tensor", None)
        if kept is None or kept.shape[0] < nbytes:
            kept = self._kept.tensor = tvm_ffi.from_dlpack(aligned(max(nbytes, 1)))
        return kept


def _empty(nbytes: int, offset: int) -> np.ndarray:
    memory = np.empty(nbytes + ALIGNMENT + offset, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT + offset
    return memory[start : start + nbytes]
