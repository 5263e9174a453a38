"""Nodes on float32 element by element: functions of one tensor, arithmetic on two."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx import checks
from lpgen.onnx.checks import check_real
from lpgen.onnx.imported import Imported, NodeKind, same
from lpgen.onnx.rules.sums import extents
from lpgen.ops.binary import Binary
from lpgen.ops.pairs import ALL_AXES
from lpgen.ops.tensor_type import TensorType
from lpgen.ops.unary import Unary

PLAIN = {
    name: name.lower()
    for name in ("Abs", "Erf", "Exp", "Log", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sqrt", "Tanh")
}
POWERS = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}


def unary(x: TensorType, function: str, **parameters: float) -> Imported:
    """A function of every element."""
    check_real("x", x.dtype)
    size = math.prod(x.shape)
    op = Unary(size=size, function=function, **parameters)
    return Imported(op, {"x": same(x.shape, (size,))}, same((size,), x.shape))


def plain(function: str, x: TensorType, **attributes: Any) -> Imported:
    """One without parameters."""
    if attributes:
        raise OnnxError(f"attribute {min(attributes)} is not served")
    return unary(x, function)


def gelu(x: TensorType, approximate: str = "none") -> Imported:
    """Gelu with erf, or its approximation by tanh."""
    if approximate not in ("none", "tanh"):
        raise OnnxError(f"approximate={approximate}, lpgen has none and tanh")
    return unary(x, "gelu_tanh" if approximate == "tanh" else "gelu")


def leaky_relu(x: TensorType, alpha: float = 0.01) -> Imported:
    """LeakyRelu."""
    return unary(x, "leaky_relu", alpha=alpha)


def hard_sigmoid(x: TensorType, alpha: float = 0.2, beta: float = 0.5) -> Imported:
    """HardSigmoid."""
    return unary(x, "hard_sigmoid", alpha=alpha, beta=beta)


def clip(
    x: TensorType, low: np.ndarray | float = -np.inf, high: np.ndarray | float = np.inf
) -> Imported:
    """Clip."""
    low, high = (checks.single(name, np.asarray(v)) for name, v in (("min", low), ("max", high)))
    return unary(x, "clip", alpha=float(low), beta=float(high))


def binary(
    function: str, x: TensorType | np.ndarray, b: TensorType | np.ndarray, **attributes: Any
) -> Imported:
    """Two tensors, broadcast; either may be constant."""
    if attributes:
        raise OnnxError(f"attribute {min(attributes)} is not served")
    given = {"a": x, "b": b}
    for name, value in given.items():
        check_real(name, str(value.dtype))
    axes = max(len(value.shape) for value in given.values())
    wide = {n: (1,) * (axes - len(v.shape)) + tuple(v.shape) for n, v in given.items()}
    try:
        shape = np.broadcast_shapes(*wide.values())
    except ValueError:
        raise OnnxError(f"shapes {x.shape} and {b.shape} do not match") from None
    op = Binary(function=function, **extents(wide["a"], wide["b"]))
    own = {name: op.shape_of(op.axes_of(name)) for name in given}
    tensors = {n: v for n, v in given.items() if isinstance(v, TensorType)}
    return Imported(
        op,
        {name: same(value.shape, own[name]) for name, value in tensors.items()},
        same(op.shape_of(ALL_AXES), shape),
        parameters={n: v.reshape(own[n]) for n, v in given.items() if n not in tensors},
    )


def power(x: TensorType | np.ndarray, b: np.ndarray) -> Imported:
    """Pow by a number for which it is another function."""
    number = float(checks.single("the exponent", b)) if b.size == 1 else None
    if number not in POWERS or not isinstance(x, TensorType):
        raise OnnxError(f"a power of {number}, lpgen has {', '.join(map(str, POWERS))}")
    return unary(x, POWERS[number])


_PAIRS: dict[str, Callable[..., Imported]] = {
    name: partial(binary, name.lower()) for name in ("Add", "Sub", "Mul", "Div", "Min", "Max")
}
NODES = {
    **{name: NodeKind((), partial(plain, function)) for name, function in PLAIN.items()},
    "HardSwish": NodeKind((), partial(plain, "hard_swish")),
    "Gelu": NodeKind((), gelu),
    "LeakyRelu": NodeKind((), leaky_relu),
    "HardSigmoid": NodeKind((), hard_sigmoid),
    "Clip": NodeKind(("low", "high"), clip),
    **{name: NodeKind(("b",), c, tensors=("x", "b")) for name, c in _PAIRS.items()},
    "Pow": NodeKind(("b",), power),
}
