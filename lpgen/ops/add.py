"""Adding two quantized tensors: what a residual connection does where no kernel has it fused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.errors import FormatError
from lpgen.formats import REAL, Format
from lpgen.ops.elementwise import quantized
from lpgen.ops.operator import Example, Operator
from lpgen.ops.parameter import Parameter, legal
from lpgen.ops.signature import Argument, Role, Signature
from lpgen.ops.words import FORMAT, NUMBER, Word, one_of

CLAMPS = ("none", "relu")
ROUNDED = ("sum", "quotient")


@dataclass(frozen=True, kw_only=True)
class Add(Operator):
    """y = (scale_a * (a - zero_a) + scale_b * (b - zero_b)) / scale_y + zero_y, rounded half to
    even, saturated; with clamp=relu the sum is bounded by 0 before it is divided.

    a and y: [outer, inner]; b: [inner], the same for every outer. A call takes them, `scales` (of
    a, b and y, float32) and `zeros` (int32, values of the formats). Every operation is one of IEEE
    754 in float32, in the order written. rounded: "sum", what is written above, is QLinearAdd; with
    "quotient" zero_y is added behind the rounding, as QuantizeLinear behind an Add does it, which
    differs where the quotient is a tie and zero_y odd. The result is the lowest value where the
    quotient is no number (NaN), and zero_y where the sum is none and clamp=relu.
    Raises WorkloadError when a size is outside its limits or a format is not u1..u8 or s2..s8.
    Source: QLinearAdd, https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """

    outer: int = 1
    inner: int
    a: Format
    b: Format
    out: Format
    clamp: str = "none"
    rounded: str = "sum"

    kind: ClassVar[str] = "add"
    WORDS: ClassVar[dict[str, Word]] = {
        "outer": NUMBER,
        "inner": NUMBER,
        "a": FORMAT,
        "b": FORMAT,
        "out": FORMAT,
        "clamp": Word(one_of(*CLAMPS), str, quiet=True),
        "rounded": Word(one_of(*ROUNDED), str, quiet=True),
    }
    # The ends of their formats that fill a and b.
    EXTREMES: ClassVar[tuple[str, ...]] = ("max-max", "max-min", "min-max", "min-min")

    def __post_init__(self) -> None:
        for key in ("outer", "inner"):
            self._take_sizes(key, 1)
        for key in ("a", "b", "out"):
            self._take_format(key)
            if (form := getattr(self, key)).encoding not in "us":
                self._fail(f"{key}={form}: quantized values are u1..u8 or s2..s8")
        for key, known in (("clamp", CLAMPS), ("rounded", ROUNDED)):
            if (word := getattr(self, key)) not in known:
                self._fail(f"{key}={word} is unknown; known: {', '.join(known)}")
        self._check_elements(a=(self.outer, self.inner))

    @property
    def label(self) -> str:
        """add 1x200704 u8 + u8 -> u8"""
        relu = "" if self.clamp == "none" else f" {self.clamp}"
        return f"add {self.outer}x{self.inner} {self.a} + {self.b}{relu} -> {self.out}"

    @property
    def identifier(self) -> str:
        """add_1x200704_u8u8u8"""
        return f"add_{self.outer}x{self.inner}_{self.a}{self.b}{self.out}"

    @property
    def signature(self) -> Signature:
        """(a, b, scales, zeros, y)"""
        whole = (self.outer, self.inner)
        return Signature(
            (
                Argument.of_values("a", whole, self.a),
                Argument.of_values("b", (self.inner,), self.b),
                Argument.of_values("scales", (3,), REAL),
                Argument("zeros", Role.INPUT, (3,), "int32"),
                Argument.of_values("y", whole, self.out, Role.OUTPUT),
            )
        )

    @property
    def ops(self) -> int:
        """Two for each element of a and b, and two for the result."""
        return 6 * self.outer * self.inner

    def example(self, rng: np.random.Generator, name: str = "random") -> Example:
        """a and b random, or the ends that EXTREMES say; scales with which about all values of y
        come out, powers of two every other time, so that ties are common."""
        self._check_example(name)
        shapes, forms = ((self.outer, self.inner), (self.inner,)), (self.a, self.b)
        if name == "random":
            a, b = (form.random(rng, shape) for form, shape in zip(forms, shapes, strict=True))
        else:
            given = zip(name.split("-"), forms, shapes, strict=True)
            a, b = (np.full(shape, getattr(form, end), form.dtype) for end, form, shape in given)
        scales = 2.0 ** rng.uniform(-2, 2, 3) * [1, 1, (self.a.levels + self.b.levels) / 2]
        scales[2] /= self.out.levels
        scales = 2.0 ** np.rint(np.log2(scales)) if rng.random() < 0.5 else scales
        zeros = [rng.integers(f.min, f.max + 1) for f in (*forms, self.out)]
        inputs = {"scales": scales.astype(np.float32), "zeros": np.array(zeros, np.int32)}
        return Example(name, {"a": a, "b": b} | inputs, None, {})

    def reference(
        self, a: np.ndarray, b: np.ndarray, scales: np.ndarray, zeros: np.ndarray
    ) -> np.ndarray:
        """The exact result, [outer, inner]; scales: float32[3] and zeros: int32[3], of a, b, y."""
        a = self._checked("a", a, (self.outer, self.inner), self.a)
        b = self._checked("b", b, (self.inner,), self.b)
        scales = self._checked("scales", scales, (3,), REAL)
        zeros = legal("zeros", zeros, Parameter((3,), "int32", -(2**31), 2**31 - 1))
        for form, zero, name in zip((self.a, self.b, self.out), zeros, "aby", strict=True):
            if not form.min <= zero <= form.max:
                raise FormatError(
                    f"zeros: {zero} of {name} is outside {form.min}..{form.max} ({form})"
                )
        with np.errstate(all="ignore"):  # infinities and what is no number have results, too
            a = (a.astype(np.int32) - zeros[0]).astype(np.float32) * scales[0]
            b = (b.astype(np.int32) - zeros[1]).astype(np.float32) * scales[1]
            v = a + b
            v = np.where(v > 0, v, np.float32(0)) if self.clamp == "relu" else v
            v = v / scales[2]
            if self.rounded == "quotient":
                return quantized(v, zeros[2], self.out)
            return quantized(v + np.float32(zeros[2]), np.int32(0), self.out)
