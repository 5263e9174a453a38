"""Bounds of what waited, where it becomes float32."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.onnx.values import Pending, Stored
from lpgen.ops.unary import Unary

if TYPE_CHECKING:
    from lpgen.onnx.lowering import Lowering


def bounded_real(lowering: Lowering, tensor: Stored, bounds: Pending, name: str = "") -> Stored:
    """float32 with its bounds, in the tensor `name` where a step makes it."""
    if (bounds.low, bounds.high) == (-np.inf, np.inf):
        return tensor
    function = {"function": "relu"}
    if (bounds.low, bounds.high) != (0, np.inf):
        function = {"function": "clip", "alpha": bounds.low, "beta": bounds.high}
    op = Unary(size=math.prod(tensor.type.shape), **function)
    made = lowering.step(name or f"{tensor.name}:bounded", op, {"x": tensor})
    return replace(tensor, name=made)
