"""Quantizing a tensor of float32, and the way back, as operators of their own."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lpgen.errors import FormatError
from lpgen.formats import REAL, Format
from lpgen.ops.epilogue import Chain
from lpgen.ops.lhs import Lhs
from lpgen.ops.operator import Example, Operator
from lpgen.ops.parameter import Parameter, real
from lpgen.ops.product import Matrix
from lpgen.ops.signature import Argument, Limits, Role, Signature, of_packer, packed_weights
from lpgen.ops.words import FORMAT, MAX_ELEMENTS, NUMBER, Word, read_number

_PER = re.compile(r"tensor|axis|block[1-9][0-9]*")


def _read_per(text: str) -> str:
    if not _PER.fullmatch(text):
        raise ValueError(f"{text!r} is none of tensor, axis, blockN")
    if text.startswith("block"):
        read_number(text.removeprefix("block"))
    return text


@dataclass(frozen=True, kw_only=True)
class Elementwise(Operator):
    """What quantize and dequantize share: tensors [outer, axis, inner], scales and zero points.

    per: what has a scale and a zero point of its own: the "tensor", each place on the "axis", or
    each "blockN": N neighbours on the axis (the last block may be shorter), apart for every outer
    and inner. Zero points are what other operators have as weights: values of the format, of shape
    `w_shape`; the parameter `scale` is a float32 of the same shape.
    Raises WorkloadError when a size is outside its limits or the format is not u1..u8 or s2..s8.
    """

    outer: int = 1
    axis: int
    inner: int = 1
    format: Format
    per: str = "tensor"

    WORDS: ClassVar[dict[str, Word]] = {
        "outer": NUMBER,
        "axis": NUMBER,
        "inner": NUMBER,
        "format": FORMAT,
        "per": Word(_read_per, str),
    }
    epilogue: ClassVar[Chain] = ()
    input: ClassVar[str] = "act"
    outliers: ClassVar[int] = 0

    def __post_init__(self) -> None:
        for key in ("outer", "axis", "inner"):
            self._take_sizes(key, 1)
        try:
            self._set("format", Format.parse(self.format))
            _read_per(self.per)
        except (FormatError, ValueError) as error:
            self._fail(str(error))
        if self.format.encoding not in "us":
            self._fail(f"format={self.format}: quantized values are u1..u8 or s2..s8")
        if math.prod(self.x_extents) > MAX_ELEMENTS:
            self._fail(f"x has {math.prod(self.x_extents)} elements, the limit is {MAX_ELEMENTS}")

    @property
    def block(self) -> int:
        """Places on the axis that share a scale."""
        return {"tensor": self.axis, "axis": 1}.get(self.per) or int(self.per[len("block") :])

    @property
    def blocks(self) -> int:
        """How many blocks there are on the axis."""
        return -(-self.axis // self.block)

    @property
    def x_extents(self) -> tuple[int, ...]:
        """(outer, axis, inner)"""
        return (self.outer, self.axis, self.inner)

    @property
    def y_extents(self) -> tuple[int, ...]:
        """(outer, axis, inner)"""
        return self.x_extents

    @property
    def w_shape(self) -> tuple[int, ...]:
        """Shape of the scales: (1,), (axis,) or (outer, blocks, inner)."""
        if self.per in ("tensor", "axis"):
            return (self.blocks,)
        return (self.outer, self.blocks, self.inner)

    @property
    def weight(self) -> Format:
        """The format of the zero points."""
        return self.format

    @property
    def matrix(self) -> Matrix:
        """A row for every outer, and one product for every element."""
        return Matrix(1, self.outer, self.axis * self.inner, 1)

    @property
    def label(self) -> str:
        """quantize 2x64x3136 f32 -> u8"""
        return f"{self.kind} {self._sizes} {self.act} -> {self.out}"

    @property
    def identifier(self) -> str:
        """quantize_2x64x3136_u8"""
        return f"{self.kind}_{self._sizes}_{self.format}"

    @property
    def _sizes(self) -> str:
        return "x".join(map(str, self.x_extents))

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(outer, axis, inner)"""
        return self.x_extents

    @property
    def x_dtype(self) -> str:
        """The NumPy dtype of x."""
        return self.act.dtype

    @property
    def signature(self) -> Signature:
        """(x, packed, y)"""
        x = (self.x_shape, self.x_dtype, str(self.act), Limits.of_format(self.act))
        y = Argument("y", Role.OUTPUT, self.y_shape, self.y_dtype, self.out)
        return Signature((Argument("x", Role.INPUT, *x), packed_weights(), y))

    def packing(self, nbytes: int) -> Signature:
        """(weights, parameters, packed): what packs the weights into so many bytes."""
        return of_packer(self.w_shape, self.weight, self.parameters, nbytes)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(outer, axis, inner)"""
        return self.x_extents

    @property
    def lhs(self) -> Lhs:
        """x comes in as it is."""
        return Lhs("act", self.act, 0)

    @property
    def pack(self) -> None:
        """There is none."""
        return None

    @property
    def macs(self) -> int:
        """The elements."""
        return math.prod(self.x_extents)

    @property
    def ops(self) -> int:
        """Two for each element: with its scale, and with its zero point."""
        return 2 * self.macs

    @property
    def reuse(self) -> int:
        """The elements that share a scale."""
        return self.macs // math.prod(self.w_shape)

    @property
    def residual(self) -> None:
        """There is none."""
        return None

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The scales."""
        return {"scale": real(*self.w_shape)}

    EXTREMES: ClassVar[tuple[str, ...]] = ("max-max", "max-min", "min-max", "min-min")

    def random(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Values of x and zero points."""
        return self.act.random(rng, self.x_extents), self.weight.random(rng, self.w_shape)

    def extreme(self, which: str) -> tuple[np.ndarray, np.ndarray]:
        """One value of x and one of the zero points: one of EXTREMES."""
        x_end, w_end = which.split("-")
        w = np.full(self.w_shape, getattr(self.weight, w_end), self.weight.dtype)
        return np.full(self.x_extents, getattr(self.act, x_end), self.act.dtype), w

    def extremes(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All of EXTREMES."""
        return (self.extreme(which) for which in self.EXTREMES)

    def example(self, rng: np.random.Generator, name: str = "random") -> Example:
        """Values of x and zero points random or of one of EXTREMES, and scales."""
        x, w = self.random(rng) if name == "random" else self.extreme(name)
        return Example(name, {"x": x}, w, self.random_parameters(rng))

    def random_residual(self, rng: np.random.Generator) -> None:
        """There is none."""
        return None

    def random_parameters(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Scales around what takes values of about 1 into the format; half are powers of two."""
        scale = 4 / self.format.levels * 2.0 ** rng.uniform(-2, 2, self.w_shape)
        rounded = 2.0 ** np.rint(np.log2(scale))
        some = rng.random(self.w_shape) < 0.5
        return {"scale": np.where(some, rounded, scale).astype(np.float32)}

    def reference(
        self,
        x: np.ndarray,
        w: np.ndarray,
        residual: None = None,
        **parameters: np.ndarray,
    ) -> np.ndarray:
        """The exact result, computed by NumPy alone: the oracle of every test.

        x: [x_shape]; w: the zero points; parameters: the scales. Raises as those of all operators.
        """
        scale = self.legal_parameters(parameters)["scale"]
        x = self._checked("x", x, self.x_shape, self.act)
        w = self._checked("w", w, self.w_shape, self.weight)
        if residual is not None:
            self._fail("residual is not asked for")
        with np.errstate(all="ignore"):  # 0 / 0 and overflows have their results, too
            return self._values(x, self._spread(w), self._spread(scale))

    def _spread(self, values: np.ndarray) -> np.ndarray:
        """An array of w_shape, for each element."""
        blocks = values.reshape(1, -1, 1) if values.ndim == 1 else values
        each = np.repeat(blocks, self.block, axis=1)[:, : self.axis]
        return np.broadcast_to(each, self.x_extents)

    def _values(self, x: np.ndarray, zero: np.ndarray, scale: np.ndarray) -> np.ndarray:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class QuantizeLinear(Elementwise):
    """y = x / scale, rounded half to even, plus the zero point, saturated to the format.

    x: float32; the quotient is one of IEEE 754 in float32. Where it is no number (NaN) y is the
    lowest value of the format, as in onnxruntime. Source: ONNX QuantizeLinear, https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
    """

    kind: ClassVar[str] = "quantize"

    @property
    def act(self) -> Any:
        """float32"""
        return REAL

    @property
    def out(self) -> str:
        """The text of the format."""
        return str(self.format)

    @property
    def y_dtype(self) -> str:
        """int8 or uint8"""
        return self.format.dtype

    def _values(self, x: np.ndarray, zero: np.ndarray, scale: np.ndarray) -> np.ndarray:
        v = x / scale
        v = np.where(v > -QUANTIZE_LIMIT, v, np.float32(-QUANTIZE_LIMIT))  # NaN, too
        v = np.where(v < QUANTIZE_LIMIT, v, np.float32(QUANTIZE_LIMIT))
        v = np.rint(v).astype(np.int32) + zero
        return np.clip(v, self.format.min, self.format.max).astype(self.format.dtype)


QUANTIZE_LIMIT = 1024
"""Quotients are kept in this range before they are rounded: outside of it all are saturated."""


@dataclass(frozen=True, kw_only=True)
class DequantizeLinear(Elementwise):
    """y = (x - zero point) * scale in float32.

    Source: ONNX DequantizeLinear, https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html
    """

    kind: ClassVar[str] = "dequantize"

    @property
    def act(self) -> Format:
        """The format."""
        return self.format

    @property
    def out(self) -> str:
        """f32"""
        return "f32"

    @property
    def y_dtype(self) -> str:
        """float32"""
        return "float32"

    def _values(self, x: np.ndarray, zero: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return (x.astype(np.int32) - zero).astype(np.float32) * scale
