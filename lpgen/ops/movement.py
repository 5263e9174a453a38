"""Operators that move elements and compute nothing, whatever the elements are.

`dtype` is what they are in memory: uint8, int8, int32 or float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import Format
from lpgen.ops.elementwise import quantized
from lpgen.ops.signature import Argument, Limits, Role, Signature
from lpgen.ops.unweighted import Unweighted
from lpgen.ops.words import FORMAT, NUMBER, Word, one_of, read_number

DTYPES = ("uint8", "int8", "int32", "float32")
MOST_AXES = 5
MOST_INPUTS = 16

DTYPE = Word(one_of(*DTYPES), str)
NUMBERS = Word(
    lambda text: tuple(read_number(part) for part in text.split("x")),
    lambda numbers: "x".join(map(str, numbers)),
)


@dataclass(frozen=True, kw_only=True)
class Movement(Unweighted):
    """Base of what moves elements of one dtype."""

    dtype: str

    def _take_dtype(self) -> None:
        if self.dtype not in DTYPES:
            self._fail(f"dtype={self.dtype} is unknown; known: {', '.join(DTYPES)}")

    def _take_shape(self, *keys: str, low: int = 1) -> None:
        """Fields as tuples of as many numbers as the first one, 1 to MOST_AXES of them."""
        for key in keys:
            self._take_sizes(key, low, tuple)
            count = len(getattr(self, keys[0]))
            if not 1 <= count <= MOST_AXES:
                self._fail(f"{key} has {count} axes, the limit is {MOST_AXES}")
            if len(getattr(self, key)) != count:
                self._fail(f"{key} has {len(getattr(self, key))} axes, {keys[0]} has {count}")

    def _tensor(self, name: str, shape: tuple[int, ...], role: Role = Role.INPUT) -> Argument:
        return Argument(name, role, shape, self.dtype)


@dataclass(frozen=True, kw_only=True)
class Transpose(Movement):
    """The axes of x in another order: axis i of y is axis axes[i] of x.

    With out=FORMAT x is float32 and quantized on the way, y = round(x / scale) + zero, half to even
    and saturated as QuantizeLinear; a call then takes `scales` and `zeros` of y.
    Raises WorkloadError when sizes are outside their limits, `axes` is no order of the axes, or
    what is quantized is not float32.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    out: Format | None = None

    kind: ClassVar[str] = "transpose"
    WORDS: ClassVar[dict[str, Word]] = {
        "shape": NUMBERS,
        "axes": NUMBERS,
        "dtype": DTYPE,
        "out": FORMAT._replace(quiet=True),
    }

    def __post_init__(self) -> None:
        self._take_dtype()
        self._take_shape("shape")
        self._take_sizes("axes", 0, tuple)
        if sorted(self.axes) != list(range(len(self.shape))):
            self._fail(f"axes={NUMBERS.write(self.axes)} is no order of {len(self.shape)} axes")
        if self.out is not None:
            self._take_values("out", real=False)
            if self.dtype != "float32":
                self._fail(f"out={self.out}: only float32 is quantized, not {self.dtype}")
        self._check_elements(x=self.shape)

    @property
    def zeros_of(self) -> dict[str, Format]:
        return {} if self.out is None else {"y": self.out}

    @property
    def signature(self) -> Signature:
        """(x, y), or (x, scales, zeros, y)"""
        x, shape = self._tensor("x", self.shape), tuple(self.shape[axis] for axis in self.axes)
        if self.out is None:
            return Signature((x, self._tensor("y", shape, Role.OUTPUT)))
        y = Argument.of_values("y", shape, self.out, Role.OUTPUT)
        return Signature((x, *self._scales_and_zeros(), y))

    def _result(self, x: np.ndarray, **given: np.ndarray) -> np.ndarray:
        if self.out is not None:
            x = quantized(x / given["scales"][0], given["zeros"][0], self.out)
        return np.ascontiguousarray(x.transpose(self.axes))


@dataclass(frozen=True, kw_only=True)
class Concat(Movement):
    """y[outer, sum of sizes]: x0[outer, sizes[0]], x1[outer, sizes[1]], ... side by side.

    Tensors of more axes are those: what is in front of the axis is `outer`, what is behind it is
    part of each size. Raises WorkloadError unless there are 2 to 16 sizes within their limits.
    """

    outer: int = 1
    sizes: tuple[int, ...]

    kind: ClassVar[str] = "concat"
    WORDS: ClassVar[dict[str, Word]] = {"outer": NUMBER, "sizes": NUMBERS, "dtype": DTYPE}

    def __post_init__(self) -> None:
        self._take_dtype()
        self._take_sizes("outer", 1)
        self._take_sizes("sizes", 1, tuple)
        if not 2 <= len(self.sizes) <= MOST_INPUTS:
            self._fail(f"{len(self.sizes)} sizes, expected 2..{MOST_INPUTS}")
        self._check_elements(y=(self.outer, sum(self.sizes)))

    @property
    def signature(self) -> Signature:
        """(x0, x1, ..., y)"""
        inputs = [self._tensor(f"x{i}", (self.outer, size)) for i, size in enumerate(self.sizes)]
        y = self._tensor("y", (self.outer, sum(self.sizes)), Role.OUTPUT)
        return Signature((*inputs, y))

    def _result(self, **inputs: np.ndarray) -> np.ndarray:
        return np.concatenate([inputs[f"x{i}"] for i in range(len(self.sizes))], axis=1)


@dataclass(frozen=True, kw_only=True)
class Slice(Movement):
    """y[i, j, ...] = x[start + step * (i, j, ...)], `size` elements of each axis of x[shape].

    Raises WorkloadError when sizes are outside their limits or of x.
    """

    shape: tuple[int, ...]
    start: tuple[int, ...]
    size: tuple[int, ...]
    step: tuple[int, ...] | None = None

    kind: ClassVar[str] = "slice"
    WORDS: ClassVar[dict[str, Word]] = {
        **dict.fromkeys(("shape", "start", "size", "step"), NUMBERS),
        "dtype": DTYPE,
    }

    def __post_init__(self) -> None:
        self._take_dtype()
        if self.step is None:
            self._set("step", (1,) * len(self.shape))
        self._take_shape("shape", "size", "step")
        self._take_sizes("start", 0, tuple)
        if len(self.start) != len(self.shape):
            self._fail(f"start has {len(self.start)} axes, shape has {len(self.shape)}")
        for axis, extent in enumerate(self.shape):
            last = self.start[axis] + (self.size[axis] - 1) * self.step[axis]
            if last >= extent:
                self._fail(f"element {last} of axis {axis}, which has {extent}")
        self._check_elements(x=self.shape)

    @property
    def signature(self) -> Signature:
        """(x, y)"""
        y = self._tensor("y", self.size, Role.OUTPUT)
        return Signature((self._tensor("x", self.shape), y))

    def _result(self, x: np.ndarray) -> np.ndarray:
        axes = zip(self.start, self.size, self.step, strict=True)
        return x[tuple(slice(a, a + n * s, s) for a, n, s in axes)].copy()


@dataclass(frozen=True, kw_only=True)
class Pad(Movement):
    """y: x[shape] with `before` and `after` elements `value` (an input, [1]) around on each axis.

    Raises WorkloadError when sizes are outside their limits.
    """

    shape: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    kind: ClassVar[str] = "pad"
    WORDS: ClassVar[dict[str, Word]] = {
        **dict.fromkeys(("shape", "before", "after"), NUMBERS),
        "dtype": DTYPE,
    }

    def __post_init__(self) -> None:
        self._take_dtype()
        self._take_shape("shape")
        for key in ("before", "after"):
            self._take_sizes(key, 0, tuple)
            if len(getattr(self, key)) != len(self.shape):
                self._fail(f"{key} has {len(getattr(self, key))} axes, shape has {len(self.shape)}")
        self._check_elements(y=self.y_shape)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """The shape of y."""
        return tuple(map(sum, zip(self.before, self.shape, self.after, strict=True)))

    @property
    def signature(self) -> Signature:
        """(x, value, y)"""
        x, value = self._tensor("x", self.shape), self._tensor("value", (1,))
        return Signature((x, value, self._tensor("y", self.y_shape, Role.OUTPUT)))

    def _result(self, x: np.ndarray, value: np.ndarray) -> np.ndarray:
        y = np.full(self.y_shape, value[0], x.dtype)
        axes = zip(self.before, self.shape, strict=True)
        y[tuple(slice(first, first + n) for first, n in axes)] = x
        return y


@dataclass(frozen=True, kw_only=True)
class Gather(Movement):
    """y[count, columns]: the rows of x[rows, columns] that index (int32[count]) names.

    A number outside of 0..rows-1 is no index: kernels take the nearest row.
    """

    rows: int
    columns: int
    count: int

    kind: ClassVar[str] = "gather"
    WORDS: ClassVar[dict[str, Word]] = {
        **dict.fromkeys(("rows", "columns", "count"), NUMBER),
        "dtype": DTYPE,
    }

    def __post_init__(self) -> None:
        self._take_dtype()
        for key in ("rows", "columns", "count"):
            self._take_sizes(key, 1)
        self._check_elements(x=(self.rows, self.columns), y=(self.count, self.columns))

    @property
    def signature(self) -> Signature:
        """(x, index, y)"""
        limits = Limits(0, self.rows - 1)
        index = Argument("index", Role.INPUT, (self.count,), "int32", limits=limits)
        y = self._tensor("y", (self.count, self.columns), Role.OUTPUT)
        return Signature((self._tensor("x", (self.rows, self.columns)), index, y))

    def _result(self, x: np.ndarray, index: np.ndarray) -> np.ndarray:
        return x[index]


def merged(extents: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(extent, stride) of the axes of a dense tensor whose elements come from another one with
    these strides: neighbours that count on without a gap are one axis; none of extent 1."""
    found: list[tuple[int, int]] = []
    for extent, stride in zip(extents, strides, strict=True):
        if extent == 1:
            continue
        if found and found[-1][1] == extent * stride:
            found[-1] = (found[-1][0] * extent, stride)
        else:
            found.append((extent, stride))
    return tuple(found) or ((1, 1),)


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Elements from one index to the next on each axis of a dense tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
