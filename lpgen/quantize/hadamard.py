"""Rotation of blocks along k by Hadamard matrices (QuaRot, arXiv 2404.00456, block by block).

With R orthonormal, (x R) (w R)^T = x w^T: weights are rotated once, inputs in each call. What is
large in one place of x is spread over its block, so that one scale fits the rest.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from lpgen.errors import QuantizeError


@cache
def matrix(size: int) -> np.ndarray:
    """The Hadamard matrix of Sylvester, orthonormal and symmetric, float64 [size, size]; size: a
    power of two."""
    if size < 1 or size & (size - 1):
        raise QuantizeError(f"a Hadamard matrix of {size} rows: expected a power of two")
    h = np.ones((1, 1))
    while len(h) < size:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(size)


def rotated(x: np.ndarray, block: int) -> np.ndarray:
    """x [..., k] with every `block` of its last axis rotated, of its dtype; 0: as it is."""
    if not block:
        return x
    if x.shape[-1] % block:
        raise QuantizeError(f"blocks of {block} do not divide k={x.shape[-1]}")
    turned = x.reshape(*x.shape[:-1], -1, block) @ matrix(block).astype(x.dtype)
    return turned.reshape(x.shape)


def rotated_hessian(hessian: np.ndarray, block: int) -> np.ndarray:
    """R^T H R [k, k], of inputs that are rotated."""
    return rotated(rotated(hessian, block).T, block).T
