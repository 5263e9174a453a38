"""The cells of recurrent layers: what a step in time makes of its gates and of the last state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lpgen.formats import REAL
from lpgen.ops.functions import Numbers, sigmoid, tanh
from lpgen.ops.rounded import ROUNDED_WORD, Rounded
from lpgen.ops.signature import Argument, Role, Signature
from lpgen.ops.words import NUMBER, Word, one_of


@dataclass(frozen=True, kw_only=True)
class Cell(Rounded):
    """y[rows, columns] of float32: a part of a cell, from x and r [rows, gates, columns], the parts
    of the gates that come from the input and from the last state, and a state [rows, columns]. Of
    some parts r has the first gates alone.

    A subclass states its parts, each with its gates and its formula. rounded: what of products and
    sums is (`Rounded`). Raises WorkloadError when a
    size is outside its limits, and for a part that is none.
    """

    rows: int = 1
    columns: int
    part: str

    GATES: ClassVar[int]
    PARTS: ClassVar[dict[str, Any]]
    """For each part formula(m, gates, state): gates(number) is x + r of a gate; m: the arithmetic
    (`ops.functions`)."""
    FEWER: ClassVar[dict[str, int]] = {}
    """The gates of r where it has not all of them, by part."""

    def __post_init__(self) -> None:
        for key in ("rows", "columns"):
            self._take_sizes(key, 1)
        if self.part not in self.PARTS:
            self._fail(f"part={self.part} is unknown; known: {', '.join(self.PARTS)}")
        self._take_rounded()
        self._check_elements(x=(self.rows, self.GATES, self.columns))

    @property
    def r_gates(self) -> int:
        """How many gates r has."""
        return self.FEWER.get(self.part, self.GATES)

    @property
    def signature(self) -> Signature:
        """(x, r, state, y)"""
        one = (self.rows, self.columns)
        x, r = ((self.rows, gates, self.columns) for gates in (self.GATES, self.r_gates))
        shapes = {"x": x, "r": r, "state": one}
        inputs = [Argument.of_values(name, shape, REAL) for name, shape in shapes.items()]
        return Signature((*inputs, Argument.of_values("y", one, REAL, Role.OUTPUT)))

    def value(self, m: Any, x: Any, r: Any, state: Any) -> Any:
        """The result; x(gate), r(gate): the parts of a gate."""
        return self.PARTS[self.part](m, x, r, state)

    def _result(self, x: np.ndarray, r: np.ndarray, state: np.ndarray) -> np.ndarray:
        m = Numbers.rounding(self.rounded)
        return self.value(m, lambda gate: x[:, gate], lambda gate: r[:, gate], state)


def _words(parts: dict[str, Any]) -> dict[str, Word]:
    part = Word(one_of(*parts), str)
    return {"rows": NUMBER, "columns": NUMBER, "part": part, "rounded": ROUNDED_WORD}


def _lstm_state(m: Any, x: Any, r: Any, state: Any) -> Any:
    """f c + i g"""
    keep = m.mul(sigmoid(m, m.name(x(2) + r(2))), state)
    enter = sigmoid(m, m.name(x(0) + r(0))), tanh(m, m.name(x(3) + r(3)))
    return m.name(m.plus(keep, *enter))


def _lstm_output(m: Any, x: Any, r: Any, state: Any) -> Any:
    """o tanh(c)"""
    return m.name(m.mul(sigmoid(m, m.name(x(1) + r(1))), tanh(m, state)))


def _gru_output(m: Any, x: Any, r: Any, state: Any) -> Any:
    """n + z (h - n)"""
    new = tanh(m, m.name(m.plus(x(2), sigmoid(m, m.name(x(1) + r(1))), r(2))))
    return m.name(m.plus(new, sigmoid(m, m.name(x(0) + r(0))), m.name(state - new)))


def _gru_reset(m: Any, x: Any, r: Any, state: Any) -> Any:
    """r h"""
    return m.name(m.mul(sigmoid(m, m.name(x(1) + r(1))), state))


def _gru_late(m: Any, x: Any, r: Any, state: Any) -> Any:
    """n + z (h - n), where r of n is that of what _gru_reset gave"""
    new = tanh(m, m.name(x(2) + r(2)))
    return m.name(m.plus(new, sigmoid(m, m.name(x(0) + r(0))), m.name(state - new)))


_LSTM = {"state": _lstm_state, "output": _lstm_output}
_GRU = {"output": _gru_output, "reset": _gru_reset, "late": _gru_late}


@dataclass(frozen=True, kw_only=True)
class LstmCell(Cell):
    """Of a long short-term memory with gates i, o, f, g, as ONNX has them: part=state is
    sigmoid(f) c + sigmoid(i) tanh(g) of the last state c, part=output sigmoid(o) tanh(c) of the
    new one."""

    kind: ClassVar[str] = "lstm_cell"
    GATES: ClassVar[int] = 4
    PARTS: ClassVar[dict[str, Any]] = _LSTM
    WORDS: ClassVar[dict[str, Word]] = _words(_LSTM)


@dataclass(frozen=True, kw_only=True)
class GruCell(Cell):
    """Of a gated recurrent unit with gates z, r, n, as ONNX has them: new + sigmoid(z) (h - new),
    part=output with new = tanh(x of n + sigmoid(r) (r of n)) (linear_before_reset=1); where the
    state is reset before its product, part=reset is sigmoid(r) h, r having z and r alone, and
    part=late has new = tanh(x of n + r of n)."""

    kind: ClassVar[str] = "gru_cell"
    GATES: ClassVar[int] = 3
    PARTS: ClassVar[dict[str, Any]] = _GRU
    FEWER: ClassVar[dict[str, int]] = {"reset": 2}
    WORDS: ClassVar[dict[str, Word]] = _words(_GRU)
