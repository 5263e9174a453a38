"""Resize: images in another height and width."""

from __future__ import annotations

from typing import Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.formats import REAL
from lpgen.onnx import checks
from lpgen.onnx.imported import Imported, NodeKind, Relayout
from lpgen.ops.resize import COORDINATES, MODES, ROUNDINGS, Resize, places_of
from lpgen.ops.tensor_type import TensorType

IGNORED = ("cubic_coeff_a", "extrapolation_value", "antialias", "exclude_outside")
"""Attributes that say nothing where they are 0 or of another mode."""


def resize(
    x: TensorType,
    roi: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    **attributes: Any,
) -> Imported:
    """Resize of an image [n, c, h, w] by scales or to sizes, which are known."""
    coordinates = coordinate_transformation_mode
    for word, words in ((mode, MODES), (coordinates, COORDINATES), (nearest_mode, ROUNDINGS)):
        if word not in words:
            raise OnnxError(f"{word} is none of {', '.join(words)}")
    for name, value in attributes.items():
        if name not in IGNORED or (value and not name.startswith(("cubic", "extrapolation"))):
            raise OnnxError(f"{name}={value} is not served")
    if len(x.shape) != 4:
        raise OnnxError(f"x has {len(x.shape)} axes, lpgen has 4")
    given: list[float | None] = [None] * 4
    if sizes is not None and sizes.size:
        out = sizes.tolist()
    elif scales is not None and scales.size == 4:
        given = [float(scale) for scale in scales]
        out = [int(np.floor(n * np.float64(s))) for n, s in zip(x.shape, given, strict=True)]
    else:
        raise OnnxError("scales or sizes of 4 axes are missing")
    n, c, h, w = x.shape
    if tuple(out[:2]) != (n, c):
        raise OnnxError(f"the result has shape {tuple(out)}, lpgen keeps {n} and {c} in front")
    act = REAL if x.dtype == "float32" else checks.format_of("x", x.dtype)
    op = Resize(n=n, h=h, w=w, c=c, oh=out[2], ow=out[3], mode=mode, act=act)
    parameters = {}
    for axis, name in ((2, "row"), (3, "column")):
        words = (mode, coordinates, nearest_mode, given[axis])
        parameters[f"{name}s"], weights = places_of(x.shape[axis], out[axis], *words)
        if mode == "linear":
            parameters[f"{name}_weights"] = weights
    shape = (n, h, w, c)
    return Imported(
        op,
        {"x": Relayout(x.shape, x.shape, (0, 2, 3, 1), shape)},
        Relayout(op.y_shape, op.y_shape, (0, 3, 1, 2), (n, c, *out[2:])),
        parameters=parameters,
    )


NODES = {"Resize": NodeKind(("roi", "scales", "sizes"), resize)}
