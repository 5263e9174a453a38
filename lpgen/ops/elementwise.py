"""Operators on every element for itself: quantizing a tensor of float32, and the way back."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import REAL, Format, Real
from lpgen.ops.operator import Example, Operator
from lpgen.ops.signature import Argument, Role, Signature
from lpgen.ops.words import FORMAT, NUMBER, Word, read_number

_PER = re.compile(r"tensor|axis|block[1-9][0-9]*")


def _read_per(text: str) -> str:
    if not _PER.fullmatch(text):
        raise ValueError(f"{text!r} is none of tensor, axis, blockN")
    if text.startswith("block"):
        read_number(text.removeprefix("block"))
    return text


QUANTIZE_LIMIT = 1024
"""Quotients are kept in this range before they are rounded: outside of it all are saturated."""


def quantized(v: np.ndarray, zero: np.ndarray | np.int32, form: Format) -> np.ndarray:
    """float32 v rounded half to even, plus the zero point, saturated; the lowest value for NaN."""
    v = np.where(v > -QUANTIZE_LIMIT, v, np.float32(-QUANTIZE_LIMIT))  # NaN, too
    v = np.where(v < QUANTIZE_LIMIT, v, np.float32(QUANTIZE_LIMIT))
    return np.clip(np.rint(v).astype(np.int32) + zero, form.min, form.max).astype(form.dtype)


@dataclass(frozen=True, kw_only=True)
class Elementwise(Operator):
    """Base of quantize and dequantize: tensors [outer, axis, inner], scales and zero points.

    per: what has a scale and a zero point of its own: the "tensor", each place on the "axis", or
    each "blockN": N neighbours on the axis (the last block may be shorter), apart for every outer
    and inner. A call takes x, `scale` (float32) and `zero` (values of the format), both of shape
    `scale_shape`: they are few, nothing is gained by packing them, and they may come from the
    tensor itself.
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
    # The end of its format that fills the tensor, where that is one, and the one of the zero point.
    EXTREMES: ClassVar[tuple[str, ...]] = ("max-max", "max-min", "min-max", "min-min")

    def __post_init__(self) -> None:
        for key in ("outer", "axis", "inner"):
            self._take_sizes(key, 1)
        self._take_format("format")
        try:
            _read_per(self.per)
        except ValueError as error:
            self._fail(str(error))
        if self.format.encoding not in "us":
            self._fail(f"format={self.format}: quantized values are u1..u8 or s2..s8")
        self._check_elements(x=self.extents)

    @property
    def label(self) -> str:
        """quantize 2x64x3136 f32 -> u8"""
        return f"{self.kind} {self._sizes} {self.act} -> {self.made}"

    @property
    def identifier(self) -> str:
        """quantize_2x64x3136_u8"""
        return f"{self.kind}_{self._sizes}_{self.format}"

    @property
    def _sizes(self) -> str:
        return "x".join(map(str, self.extents))

    @property
    def extents(self) -> tuple[int, ...]:
        """(outer, axis, inner): the shape of x and y."""
        return (self.outer, self.axis, self.inner)

    @property
    @abstractmethod
    def act(self) -> Format | Real:
        """What the values of x are."""

    @property
    @abstractmethod
    def made(self) -> Format | Real:
        """What the values of y are."""

    @property
    def block(self) -> int:
        """Places on the axis that share a scale."""
        return {"tensor": self.axis, "axis": 1}.get(self.per) or int(self.per[len("block") :])

    @property
    def blocks(self) -> int:
        """How many blocks there are on the axis."""
        return -(-self.axis // self.block)

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """Shape of scales and zero points: (1,), (axis,) or (outer, blocks, inner)."""
        if self.per in ("tensor", "axis"):
            return (self.blocks,)
        return (self.outer, self.blocks, self.inner)

    @property
    def signature(self) -> Signature:
        """(x, scale, zero, y)"""
        shape = self.scale_shape
        return Signature(
            (
                Argument.of_values("x", self.extents, self.act),
                Argument.of_values("scale", shape, REAL),
                Argument.of_values("zero", shape, self.format),
                Argument.of_values("y", self.extents, self.made, Role.OUTPUT),
            )
        )

    @property
    def ops(self) -> int:
        """Two for each element: with its scale, and with its zero point."""
        return 2 * math.prod(self.extents)

    def example(self, rng: np.random.Generator, name: str = "random") -> Example:
        """Values of x and zero points: random, or the ends that EXTREMES say.

        Scales are around what takes values of about 1 into the format; half are powers of two.
        """
        self._check_example(name)
        shape = self.scale_shape
        if name == "random":
            x, zero = self.act.random(rng, self.extents), self.format.random(rng, shape)
        else:
            x_end, zero_end = name.split("-")
            x = np.full(self.extents, getattr(self.act, x_end), self.act.dtype)
            zero = np.full(shape, getattr(self.format, zero_end), self.format.dtype)
        scale = 4 / self.format.levels * 2.0 ** rng.uniform(-2, 2, shape)
        rounded = 2.0 ** np.rint(np.log2(scale))
        scale = np.where(rng.random(shape) < 0.5, rounded, scale).astype(np.float32)
        return Example(name, {"x": x, "scale": scale, "zero": zero}, None, {})

    def reference(self, x: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """The exact result, [extents]; x: [extents], scale and zero: [scale_shape]."""
        x = self._checked("x", x, self.extents, self.act)
        scale = self._checked("scale", scale, self.scale_shape, REAL)
        zero = self._checked("zero", zero, self.scale_shape, self.format)
        with np.errstate(all="ignore"):  # 0 / 0 and overflows have their results, too
            return self._values(x, self._spread(zero), self._spread(scale))

    def _spread(self, values: np.ndarray) -> np.ndarray:
        """An array of scale_shape, for each element."""
        blocks = values.reshape(1, -1, 1) if values.ndim == 1 else values
        each = np.repeat(blocks, self.block, axis=1)[:, : self.axis]
        return np.broadcast_to(each, self.extents)

    @abstractmethod
    def _values(self, x: np.ndarray, zero: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """y of legal x, zero points and scales of each element, [extents]."""


@dataclass(frozen=True, kw_only=True)
class QuantizeLinear(Elementwise):
    """y = x / scale, rounded half to even, plus the zero point, saturated to the format.

    x: float32; the quotient is one of IEEE 754 in float32. Where it is no number (NaN) y is the
    lowest value of the format, as in onnxruntime. Source: ONNX QuantizeLinear, https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
    """

    kind: ClassVar[str] = "quantize"

    @property
    def act(self) -> Real:
        """float32"""
        return REAL

    @property
    def made(self) -> Format:
        """The format."""
        return self.format

    def _values(self, x: np.ndarray, zero: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return quantized(x / scale, zero, self.format)


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
    def made(self) -> Real:
        """float32"""
        return REAL

    def _values(self, x: np.ndarray, zero: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return (x.astype(np.int32) - zero).astype(np.float32) * scale
