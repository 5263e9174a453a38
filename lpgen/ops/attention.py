"""Attention: softmax(queries keys^T) values, on heads that may lie beside each other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np

from lpgen.formats import REAL
from lpgen.ops.rounded import ROUNDED_WORD, Rounded
from lpgen.ops.rowwise import MatMul, Softmax
from lpgen.ops.signature import Argument, Role, Signature
from lpgen.ops.unary import REAL_NUMBER
from lpgen.ops.words import COUNT, NUMBER, Word, read_number

_BESIDE = re.compile(r"beside([0-9]{1,9})\+([0-9]{1,9})")


class Heads(NamedTuple):
    """Where the heads of a tensor are.

    form: "apart", each head [rows, columns] for itself: [batch, heads, rows, columns]; "turned",
    each [columns, rows]; "beside", in each row those of all heads: [batch, rows, of, columns],
    the first of which is number `first` of `of` there, 0: there are no others.
    """

    form: str = "apart"
    of: int = 0
    first: int = 0

    def __str__(self) -> str:
        return f"{self.form}{self.of}+{self.first}" if self.of else self.form

    @classmethod
    def parse(cls, text: str | Heads) -> Heads:
        """What str() gives; ValueError for another text."""
        if isinstance(text, Heads):
            return text
        if text in ("apart", "turned", "beside"):
            return cls(text)
        if match := _BESIDE.fullmatch(text):
            return cls("beside", *map(read_number, match.groups()))
        raise ValueError(f"{text!r} is none of apart, turned, beside, besideOF+FIRST")

    def shape(self, batch: int, heads: int, rows: int, columns: int) -> tuple[int, ...]:
        """Of the tensor."""
        if self.form == "beside":
            return (batch, rows, self.of or heads, columns)
        return (batch, heads, *((rows, columns) if self.form == "apart" else (columns, rows)))

    def apart(self, x: np.ndarray, heads: int) -> np.ndarray:
        """The heads of a tensor, [batch, heads, rows, columns]."""
        if self.form == "beside":
            return x[:, :, self.first : self.first + heads].transpose(0, 2, 1, 3)
        return x if self.form == "apart" else x.transpose(0, 1, 3, 2)


APART = Heads()
HEADS = Word(Heads.parse, str, quiet=True)


@dataclass(frozen=True, kw_only=True)
class Attention(Rounded):
    """y = softmax(queries keys^T factor + added) values for each head of each batch, in float32.

    queries: m rows of k columns; keys: n rows of k; values: n rows of `columns` [k]; y: m rows of
    `columns`. A head is the operators `matmul`, multiplication with `factor` if that is not 1,
    `softmax` (`added`, `times` and `nan` are its words) and `matmul` behind each other, with the
    same bits. queries, keys, values, result: where their heads are (`Heads`); keys alone may be
    turned, and y has no other heads. rounded: what of products and sums (`Rounded`).
    Raises WorkloadError when a size is outside its limits, and for words that do not fit.
    """

    batch: int = 1
    heads: int = 1
    m: int
    n: int
    k: int
    columns: int = 0
    factor: float = 1.0
    added: int = 0
    times: int = 1
    nan: float | None = None
    queries: Heads = APART
    keys: Heads = APART
    values: Heads = APART
    result: Heads = APART

    kind: ClassVar[str] = "attention"
    WORDS: ClassVar[dict[str, Word]] = {
        **dict.fromkeys(("batch", "heads", "m", "n", "k"), NUMBER),
        "columns": COUNT,
        "factor": REAL_NUMBER,
        **dict.fromkeys(("added", "times"), COUNT),
        "nan": REAL_NUMBER,
        **dict.fromkeys(("queries", "keys", "values", "result"), HEADS),
        "rounded": ROUNDED_WORD,
    }

    def __post_init__(self) -> None:
        for key in ("batch", "heads", "m", "n", "k", "times"):
            self._take_sizes(key, 1)
        self._take_sizes("columns", 0)
        self._take_sizes("added", 0)
        if self.columns == self.k:
            self._set("columns", 0)
        self._set("factor", float(np.float32(self.factor)))
        if not np.isfinite(self.factor):
            self._fail(f"factor={self.factor} is not a finite number")
        self._take_rounded()
        self._check_elements(scores=(self.batch, self.heads, self.m, self.n))
        self._set("nan", self.softmax.nan)  # with its checks
        for key in ("queries", "keys", "values", "result"):
            self._take_heads(key)
        self._check_elements(**{a.name: a.shape for a in self.signature})

    def _take_heads(self, key: str) -> None:
        heads = getattr(self, key)
        if heads.form == "turned" and key != "keys":
            self._fail(f"{key}=turned: keys alone may be turned")
        if heads.of and (key == "result" or heads.first + self.heads > heads.of):
            known = "it has no others" if key == "result" else f"{self.heads} heads from there on"
            self._fail(f"{key}={heads}: {known}")
        if (heads.of, heads.first) == (self.heads, 0):
            self._set(key, Heads(heads.form))

    @property
    def softmax(self) -> Softmax:
        """The softmax of all heads."""
        rows = self.batch * self.heads * self.m
        return Softmax(
            rows=rows,
            columns=self.n,
            added=self.added,
            times=self.times,
            nan=self.nan,
            rounded=self.rounded,
        )

    @property
    def depth(self) -> int:
        """Columns of values."""
        return self.columns or self.k

    @property
    def signature(self) -> Signature:
        """(queries, keys, values, added, y)"""
        shapes = {
            "queries": self.queries.shape(self.batch, self.heads, self.m, self.k),
            "keys": self.keys.shape(self.batch, self.heads, self.n, self.k),
            "values": self.values.shape(self.batch, self.heads, self.n, self.depth),
        }
        if self.added:
            shapes["added"] = (self.softmax.rows // self.times, self.n)
        y = self.result.shape(self.batch, self.heads, self.m, self.depth)
        inputs = [Argument.of_values(name, shape, REAL) for name, shape in shapes.items()]
        return Signature((*inputs, Argument.of_values("y", y, REAL, Role.OUTPUT)))

    @property
    def ops(self) -> int:
        """Two for each multiply-accumulate of both products."""
        return 2 * self.softmax.rows * self.n * (self.k + self.depth)

    def _result(
        self,
        queries: np.ndarray,
        keys: np.ndarray,
        values: np.ndarray,
        added: np.ndarray | None = None,
    ) -> np.ndarray:
        count, m, n = self.batch * self.heads, self.m, self.n
        given = zip((self.queries, self.keys, self.values), (queries, keys, values), strict=True)
        apart = [heads.apart(x, self.heads) for heads, x in given]
        q, k, v = (x.reshape(count, *x.shape[2:]) for x in apart)
        product = partial(MatMul, batch=count, m=m, rounded=self.rounded)
        scores = product(n=n, k=self.k, order="nk")._result(q, k)
        if self.factor != 1:
            scores = scores * np.float32(self.factor)
        weights = self.softmax._result(scores.reshape(-1, n), added).reshape(count, m, n)
        y = product(n=self.depth, k=n)._result(weights, v)
        y = y.reshape(self.batch, self.heads, m, self.depth)
        return np.ascontiguousarray(y if self.result.form == "apart" else y.transpose(0, 2, 1, 3))
