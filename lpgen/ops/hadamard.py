"""Blocks of neighbours in k rotated by a Hadamard matrix before they are quantized: hadamard=128.

A few large values in a row of activations leave few levels to all others. An orthogonal matrix H
spreads each over its block, and changes no product whose weights are rotated, too:

    x * w  =  (x H) * (w H),     H = S / sqrt(block),   S[i, j] = (-1)^(ones in i & j)

(Sylvester's matrix, which is symmetric.) x S takes log2(block) sums or differences a value:

    for d in 1, 2, 4, ... block / 2:   x[i], x[i + d]  =  x[i] + x[i + d],  x[i] - x[i + d]
                                                                            for all i without bit d

each rounded to float32. Kernels compute that, and the factor 1 / sqrt(block) goes into the scale of
the activations, where it costs nothing (`ops.lhs`).

Source: QuIP# (Tseng et al., arXiv 2402.04396) and QuaRot (Ashkboos et al., arXiv 2404.00456).
"""

from __future__ import annotations

import numpy as np

BLOCKS = (16, 32, 64, 128, 256)


def check(block: int, real: bool, run: int, of: str) -> str | None:
    """Why the activations of a product cannot be rotated in such blocks, or None.

    real: they are float32; run: neighbours that a block has to divide, which `of` names.
    """
    if not block:
        return None
    if block not in BLOCKS:
        return f"hadamard={block} is none of {', '.join(map(str, BLOCKS))}"
    if not real:
        return f"hadamard={block} is for float activations: input=f32, f32:tensor or f32:row"
    if run % block:
        return f"hadamard={block} does not divide {of}={run}"
    return None


def sums(x: np.ndarray, block: int) -> np.ndarray:
    """x S of float32[..., whole blocks], in the order above; the dtype stays."""
    found = x.reshape(-1, block)
    distance = 1
    while distance < block:
        pairs = found.reshape(-1, block // (2 * distance), 2, distance)
        low, high = pairs[:, :, 0], pairs[:, :, 1]
        found = np.stack([low + high, low - high], axis=2).reshape(-1, block)
        distance *= 2
    return found.reshape(x.shape)


def factor(block: int) -> np.float32:
    """1 / sqrt(block)."""
    return np.float32(block**-0.5)


def rotated(weights: np.ndarray, block: int) -> np.ndarray:
    """w H of real weights [n, ..., whole blocks], float64: what is quantized for an operator with
    hadamard=block. It is its own inverse."""
    return sums(np.asarray(weights, np.float64), block) * block**-0.5
