"""The weights of one layer as codes, by the algorithm that its precision and data call for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lpgen.ops import hadamard
from lpgen.plans import Precision
from lpgen.quantize.calibration import Seen
from lpgen.quantize.clip import rounded
from lpgen.quantize.codes import Codes
from lpgen.quantize.gptq import DAMPING, gptq_each
from lpgen.quantize.scales import errors, searched

METHODS = ("gptq", "rtn")


@dataclass(frozen=True)
class Quantized:
    """A layer that is done.

    codes: of the (rotated) weights [n, k]; shift: what results lose on average, float64 [n]; error:
    squared error of the results in parts of their squares, as calibration has it, with the shift
    made up for where it is; rows: of inputs that were seen.
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
    corrected: bool = True,
) -> Quantized:
    """Codes for weights w [n, k] whose inputs are `seen`, in as many groups of rows of w as inputs
    have; corrected: whether a bias makes up for what results lose on average, so that it counts for
    nothing: the Hessian is then the covariance of the inputs. Raises QuantizeError for one that is
    singular."""
    block = precision.hadamard
    squares = np.stack([_rotated(_rotated(h, block).T, block).T for h in seen.hessian])
    rows, means = _rotated(w, block), _rotated(seen.mean, block)
    hessians = squares - means[:, :, None] * means[:, None] if corrected else squares
    codes = _codes(rows, hessians, precision, method, damping)
    lost = rows - codes.real()
    parts = lost.reshape(len(means), -1, lost.shape[1])
    return Quantized(
        codes,
        np.einsum("gnk,gk->gn", parts, means).ravel(),
        _power(lost, hessians) / max(_power(rows, squares), np.finfo(float).tiny),
        seen.rows,
    )


def _rotated(w: np.ndarray, block: int) -> np.ndarray:
    """w [..., k], float64, with blocks of k rotated; 0: as it is."""
    return hadamard.rotated(w, block) if block else w.astype(np.float64)


def _codes(
    w: np.ndarray, hessians: np.ndarray, precision: Precision, method: str, damping: float
) -> Codes:
    if method != "gptq":
        return rounded(w, precision.weight, precision.weight_group)
    if len(hessians) > 1:
        return gptq_each(w, hessians, precision.weight, damping)
    return searched(w, hessians[0], precision.weight, precision.weight_group, damping)


def _power(w: np.ndarray, hessians: np.ndarray) -> float:
    """Mean squares of results, added up: the traces of W H W^T."""
    parts = w.reshape(len(hessians), -1, w.shape[1])
    return float(sum(errors(w, h).sum() for w, h in zip(parts, hessians, strict=True)))
