"""Operators on rows of float32: each sums a row in the order of `functions.PARTS`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.formats import REAL
from lpgen.ops.functions import FUNCTIONS, Numbers, exp, larger, row_totals
from lpgen.ops.fused import Sums
from lpgen.ops.rounded import ROUNDED_WORD, Rounded
from lpgen.ops.signature import Argument, Role, Signature
from lpgen.ops.unary import REAL_NUMBER
from lpgen.ops.unweighted import Unweighted
from lpgen.ops.words import COUNT, NUMBER, Word, one_of


def _real(name: str, shape: tuple[int, ...], role: Role = Role.INPUT) -> Argument:
    return Argument.of_values(name, shape, REAL, role)


def _sum(values: np.ndarray) -> np.ndarray:
    return row_totals(values, np.add, 0)


@dataclass(frozen=True, kw_only=True)
class Softmax(Rounded):
    """y[rows, columns] = e * (1 / sum of e), e = exp(s - the largest s of the row), s = x or
    x + added.

    added: how many rows of the second input follow each other, such as one for each query of
    attention; times: for how many times as many rows of x these serve, such as those of its heads;
    then come the next ones. 0: there is no such input. nan: what stands for results that are no
    numbers. rounded: what is in exp (`Rounded`). Raises WorkloadError when a size is outside its
    limits, or rows are no multiple of added * times.
    """

    rows: int = 1
    columns: int
    added: int = 0
    times: int = 1
    nan: float | None = None

    kind: ClassVar[str] = "softmax"
    WORDS: ClassVar[dict[str, Word]] = {
        **dict.fromkeys(("rows", "columns"), NUMBER),
        **dict.fromkeys(("added", "times"), COUNT),
        "nan": REAL_NUMBER,
        "rounded": ROUNDED_WORD,
    }

    def __post_init__(self) -> None:
        for key in ("rows", "columns", "times"):
            self._take_sizes(key, 1)
        self._take_sizes("added", 0)
        self._check_elements(x=(self.rows, self.columns))
        self._take_rounded()
        if self.times > 1 and not self.added:
            self._fail(f"times={self.times}: nothing is added")
        if self.added and self.rows % (self.added * self.times):
            self._fail(f"rows={self.rows} is no multiple of {self.added} x {self.times}")
        if self.nan is not None:
            self._set("nan", float(np.float32(self.nan)))
            if not np.isfinite(self.nan):
                self._fail(f"nan={self.nan} is not a finite number")

    @property
    def signature(self) -> Signature:
        """(x, added, y)"""
        shape = (self.rows, self.columns)
        more = [_real("added", (self.rows // self.times, self.columns))] if self.added else []
        return Signature((_real("x", shape), *more, _real("y", shape, Role.OUTPUT)))

    def _result(self, x: np.ndarray, added: np.ndarray | None = None) -> np.ndarray:
        if added is not None:
            several = (-1, 1, self.added, self.columns)
            heads = x.reshape(-1, self.times, self.added, self.columns)
            x = (heads + added.reshape(several)).reshape(x.shape)
        e = exp(Numbers.rounding(self.rounded), x - row_totals(x, larger, -np.inf))
        y = e * (np.float32(1) / _sum(e))
        return y if self.nan is None else FUNCTIONS["replace_nan"][0](Numbers, y, self.nan)


@dataclass(frozen=True, kw_only=True)
class LayerNorm(Unweighted):
    """y[rows, columns] = (x - mean) * (1 / sqrt(variance + epsilon)) * scale + bias.

    mean: sum of the row / columns; variance: sum of (x - mean)^2 / columns; scale and bias are
    inputs, [columns]. Raises WorkloadError when a size is outside its limits.
    """

    rows: int = 1
    columns: int
    epsilon: float = float(np.float32(1e-5))

    kind: ClassVar[str] = "layer_norm"
    WORDS: ClassVar[dict[str, Word]] = {
        "rows": NUMBER,
        "columns": NUMBER,
        "epsilon": REAL_NUMBER._replace(quiet=False),
    }

    def __post_init__(self) -> None:
        for key in ("rows", "columns"):
            self._take_sizes(key, 1)
        self._set("epsilon", float(np.float32(self.epsilon)))
        if not 0 <= self.epsilon < np.inf:
            self._fail(f"epsilon={self.epsilon} is not 0 or a positive number")
        self._check_elements(x=(self.rows, self.columns))

    @property
    def signature(self) -> Signature:
        """(x, scale, bias, y)"""
        shape, each = (self.rows, self.columns), (self.columns,)
        inputs = _real("x", shape), _real("scale", each), _real("bias", each)
        return Signature((*inputs, _real("y", shape, Role.OUTPUT)))

    def _result(self, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
        count = np.float32(self.columns)
        centred = x - _sum(x) / count
        variance = _sum(centred * centred) / count
        factor = np.float32(1) / np.sqrt(variance + np.float32(self.epsilon))
        return centred * factor * scale + bias


@dataclass(frozen=True, kw_only=True)
class Reduce(Unweighted):
    """y[outer, inner]: the sum, mean or largest of x[outer, axis, inner] along the axis.

    With inner = 1 in the order of `functions.PARTS`, else one after the other; a mean is the sum /
    axis; the largest is the second of two where one is no number.
    Raises WorkloadError when a size is outside its limits.
    """

    outer: int = 1
    axis: int
    inner: int = 1
    how: str

    kind: ClassVar[str] = "reduce"
    WORDS: ClassVar[dict[str, Word]] = {
        "how": Word(one_of("sum", "mean", "max"), str),
        **dict.fromkeys(("outer", "axis", "inner"), NUMBER),
    }

    def __post_init__(self) -> None:
        for key in ("outer", "axis", "inner"):
            self._take_sizes(key, 1)
        if self.how not in ("sum", "mean", "max"):
            self._fail(f"how={self.how} is unknown; known: sum, mean, max")
        self._check_elements(x=(self.outer, self.axis, self.inner))

    @property
    def signature(self) -> Signature:
        """(x, y)"""
        x = _real("x", (self.outer, self.axis, self.inner))
        return Signature((x, _real("y", (self.outer, self.inner), Role.OUTPUT)))

    def _result(self, x: np.ndarray) -> np.ndarray:
        combine, first = (larger, -np.inf) if self.how == "max" else (np.add, 0)
        if self.inner == 1:
            y = row_totals(x[:, :, 0], combine, first)
        else:
            y = np.full((self.outer, self.inner), first, np.float32)
            for i in range(self.axis):
                y = combine(y, x[:, i])
        return y / np.float32(self.axis) if self.how == "mean" else y


@dataclass(frozen=True, kw_only=True)
class MatMul(Rounded):
    """y[batch, m, n] = a[batch, m, k] * b[batch, k, n], or b[batch, n, k] with order=nk; float32.

    Each sum begins with 0 and takes the products one after the other along k. rounded: what of
    products and sums (`Rounded`).
    Raises WorkloadError when a size is outside its limits.
    """

    batch: int = 1
    m: int
    n: int
    k: int
    order: str = "kn"

    kind: ClassVar[str] = "matmul"
    WORDS: ClassVar[dict[str, Word]] = {
        **dict.fromkeys(("batch", "m", "n", "k"), NUMBER),
        "order": Word(one_of("kn", "nk"), str),
        "rounded": ROUNDED_WORD,
    }

    def __post_init__(self) -> None:
        for key in ("batch", "m", "n", "k"):
            self._take_sizes(key, 1)
        if self.order not in ("kn", "nk"):
            self._fail(f"order={self.order} is unknown; known: kn, nk")
        self._take_rounded()
        batch, m, n, k = self.batch, self.m, self.n, self.k
        self._check_elements(a=(batch, m, k), b=(batch, n, k), y=(batch, m, n))

    @property
    def signature(self) -> Signature:
        """(a, b, y)"""
        b = (self.k, self.n) if self.order == "kn" else (self.n, self.k)
        return Signature(
            (
                _real("a", (self.batch, self.m, self.k)),
                _real("b", (self.batch, *b)),
                _real("y", (self.batch, self.m, self.n), Role.OUTPUT),
            )
        )

    @property
    def ops(self) -> int:
        """Two for each multiply-accumulate."""
        return 2 * super().ops * self.k

    def _result(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        b = b if self.order == "kn" else b.transpose(0, 2, 1)
        y, sums = np.zeros((self.batch, self.m, self.n), np.float32), Sums(self.rounded, a, b)
        for i in range(self.k):
            y = sums(y, sums.a[:, :, i, None], sums.b[:, i, None, :])
        return y
