"""Products whose float weights become bit layers, as a plan asks (`ops.layers`).

How many of them a call uses is a constant of the step, or, where that is asked for, an input of the
network that all such steps share, `layers`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx import matmul
from lpgen.onnx.rules.dynamic import with_bias
from lpgen.onnx.rules.product import Product
from lpgen.onnx.values import Activations, Layered, Stored, Value
from lpgen.ops.epilogue import Scale
from lpgen.ops.rows import Range
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    from lpgen.onnx.lowering import Lowering


def product(
    lowering: Lowering,
    x: Stored,
    w: np.ndarray,
    bias: Value | None,
    how: Activations,
    layered: Layered,
) -> Product:
    """x [..., k] of float32 times the layers of weights [k, n], plus a vector."""
    if w.ndim != 2:
        raise OnnxError(f"bit layers: weights have shape {w.shape}, expected a matrix")
    if not np.isfinite(w).all():
        raise OnnxError("bit layers: weights are not finite (NaN or infinity)")
    rows = np.ascontiguousarray(w.T, np.float32)
    n, k = rows.shape
    size = min(layered.group or k, k)
    weight, count, weights, fits = layered.make(rows)
    scale = fits.pop("scale")
    kind = TensorType(x.type.shape, how.form.dtype)
    zero = np.zeros((), how.form.dtype)
    imported = matmul.product(kind, np.zeros((k, n), np.uint8), zero, None)
    op = replace(
        imported.op,
        act=how.form,
        weight=weight,
        layers=Range(1, count),
        epilogue=(Scale(f"group{size}"),),
    )
    imported = replace(imported, op=op, weights=weights, parameters=fits)
    shape = imported.y.shape
    made = Product(
        *(TensorType(shape, "float32"), -np.inf, np.inf, x, imported, scale),
        *(len(shape) - 1, None, how.input, how.hadamard, size),
        layers=lowering.layers_input() if layered.count is None else layered.count,
    )
    return made if bias is None else with_bias(made, bias)
