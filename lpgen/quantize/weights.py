"""The weights of one layer as codes, by the algorithm that its precision and data call for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lpgen.ops import hadamard
from lpgen.plans import Precision
from lpgen.quantize.calibration import Seen
from lpgen.quantize.clip import rounded
from lpgen.quantize.codes import Codes
from lpgen.quantize.gptq import DAMPING, gptq

METHODS = ("gptq", "rtn")


@dataclass(frozen=True)
class Quantized:
    """A layer that is done.

    codes: of the (rotated) weights [n, k]; shift: what results lose on average, float64 [n]; error:
    squared error of the results in parts of their squares, as calibration has it; rows: of inputs
    that were seen.
    """

    codes: Codes
    shift: np.ndarray
    error: float
    rows: int


def quantized(
    w: np.ndarray,
    precision: Precision,
    seen: Seen,
    method: str = "gptq",
    damping: float = DAMPING,
) -> Quantized:
    """Codes for weights w [n, k] whose inputs are `seen`, in as many groups of rows of w as inputs
    have. Raises QuantizeError for a Hessian that is singular."""
    block = precision.hadamard
    hessians = [_rotated(_rotated(h, block).T, block).T for h in seen.hessian]
    parts = np.split(_rotated(w, block), len(hessians))
    means = [_rotated(mean, block) for mean in seen.mean]
    pairs = zip(parts, hessians, strict=True)
    found = [_codes(*pair, precision, method, damping) for pair in pairs]
    lost = [part - codes.real() for part, codes in zip(parts, found, strict=True)]
    return Quantized(
        Codes(
            np.concatenate([codes.codes for codes in found]),
            np.concatenate([codes.scale for codes in found]),
            *(precision.weight, precision.weight_group),
        ),
        np.concatenate([error @ mean for error, mean in zip(lost, means, strict=True)]),
        _power(lost, hessians) / max(_power(parts, hessians), np.finfo(float).tiny),
        seen.rows,
    )


def _rotated(w: np.ndarray, block: int) -> np.ndarray:
    """w [..., k], float64, with blocks of k rotated; 0: as it is."""
    return hadamard.rotated(w, block) if block else w.astype(np.float64)


def _codes(
    w: np.ndarray, hessian: np.ndarray, precision: Precision, method: str, damping: float
) -> Codes:
    if method == "gptq":
        return gptq(w, hessian, precision.weight, precision.weight_group, damping)
    return rounded(w, precision.weight, precision.weight_group)


def _power(parts: list[np.ndarray], hessians: list[np.ndarray]) -> float:
    """Mean squares of results, added up: trace of W H W^T."""
    pairs = zip(parts, hessians, strict=True)
    return float(sum(np.einsum("ik,ik->", w @ h, w) for w, h in pairs))
