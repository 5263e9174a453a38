"""LSTM and GRU: a product of the whole sequence with the weights of the input, then, step by step
in time, one of the last state with the recurrent weights, and the cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.linear import FORMATS
from lpgen.onnx.rules import parts, products
from lpgen.onnx.rules.attributes import attributes
from lpgen.onnx.rules.structure import known
from lpgen.onnx.values import Constant, Scale, Stored, Value
from lpgen.ops.cell import GruCell, LstmCell
from lpgen.ops.movement import Concat, Gather
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

    from lpgen.onnx.lowering import Lowering

DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""For each direction of a layer whether it runs backwards."""

_USUAL = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}
_DYNAMIC = "DynamicQuantize"


@dataclass(frozen=True)
class _Direction:
    """One direction of a layer.

    x: [steps, batch, inputs]; w, r: [k, gates * columns]; bias of x, of r: [gates * columns].
    """

    lowering: Lowering
    node: onnx.NodeProto
    name: str
    x: Value
    w: Constant
    r: Constant
    x_bias: np.ndarray
    r_bias: np.ndarray
    cell: type[LstmCell] | type[GruCell]
    late: bool = False
    """Whether a GRU resets its state before the product (linear_before_reset=0)."""

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(steps, batch, columns)"""
        steps, batch, _ = self.x.type.shape
        return steps, batch, self.r.array.shape[0]

    def run(
        self, h: Stored | Constant, c: Stored | Constant | None, backwards: bool
    ) -> tuple[list[Stored], Stored | Constant | None]:
        """The states [batch, columns] of all steps, and the last c of an LSTM."""
        lowering, steps = self.lowering, self.sizes[0]
        made = products.of_matrix(lowering, self.x, self.w, Constant(self.x_bias), self.node)
        gates = lowering.tensor(made, f"{self.name}:x")
        gates = lowering.ordered(gates, range(3))
        found: list[Stored | None] = [None] * steps
        for t in reversed(range(steps)) if backwards else range(steps):
            x = self._step_of(gates, t)
            if self.late:
                r = self._reset(x, h, t)
                found[t] = h = self._cell(f"h{t}", "late", x, r, h)
                continue
            r = self._recurrent(h, self.r, self.r_bias, f"r{t}")
            if c is not None:
                c = self._cell(f"c{t}", "state", x, r, c)
                h = self._cell(f"h{t}", "output", x, r, c)
            else:
                h = self._cell(f"h{t}", "output", x, r, h)
            found[t] = h
        return found, c

    def _step_of(self, gates: Stored, t: int) -> Stored:
        """The gates [batch, gates * columns] of one step in time."""
        steps, batch, columns = gates.type.shape
        kind = TensorType((batch, columns), "float32")
        if steps == 1:
            return self.lowering.stored(gates.name, kind)
        op = Gather(rows=steps, columns=batch * columns, count=1, dtype="float32")
        made = self.lowering.step(
            f"{self.name}:x{t}", op, {"x": gates}, constants={"index": np.int32([t])}
        )
        return self.lowering.stored(made, kind)

    def _recurrent(
        self, h: Stored | Constant, r: Constant, bias: np.ndarray, name: str
    ) -> Stored | Constant:
        """The part of gates that comes from the last state."""
        if isinstance(h, Constant):
            return Constant((h.array @ r.array + bias).astype(np.float32))
        made = products.of_matrix(self.lowering, h, r, Constant(bias), self.node)
        return self.lowering.tensor(made, f"{self.name}:{name}")

    def _reset(self, x: Stored, h: Stored | Constant, t: int) -> Stored:
        """The same of a state that is reset before the product for the last gate."""
        _, batch, columns = self.sizes
        two = 2 * columns
        first = _columns(self.r, 0, two), self.r_bias[:two]
        last = _columns(self.r, two, 3 * columns), self.r_bias[two:]
        r = self._recurrent(h, *first, f"zr{t}")
        reset = self._cell(f"reset{t}", "reset", x, r, h)
        new = self._recurrent(reset, *last, f"n{t}")
        op = Concat(outer=batch, sizes=(two, columns), dtype="float32")
        given = {"x0": r} if isinstance(r, Stored) else {}
        constants = {"x0": r.array} if isinstance(r, Constant) else {}
        made = self.lowering.step(f"{self.name}:r{t}", op, given | {"x1": new}, constants=constants)
        return self.lowering.stored(made, TensorType((batch, 3 * columns), "float32"))

    def _cell(
        self, name: str, part: str, x: Stored, r: Stored | Constant, state: Stored | Constant
    ) -> Stored:
        _, batch, columns = self.sizes
        op = self.cell(rows=batch, columns=columns, part=part)
        shapes = {argument.name: argument.shape for argument in op.signature.inputs}
        given = {"x": x, "r": r, "state": state}
        made = self.lowering.step(
            f"{self.name}:{name}",
            op,
            {n: v for n, v in given.items() if isinstance(v, Stored)},
            constants={
                n: np.ascontiguousarray(v.array.reshape(shapes[n]))
                for n, v in given.items()
                if isinstance(v, Constant)
            },
        )
        return self.lowering.stored(made, TensorType((batch, columns), "float32"))


def layer(lowering: Lowering, node: onnx.NodeProto) -> Sequence[Value]:
    """LSTM and GRU, and DynamicQuantizeLSTM of com.microsoft."""
    kind = node.op_type.removeprefix(_DYNAMIC)
    given = lowering.inputs(node) + [None] * 12
    lstm = kind == "LSTM"
    directions, late = _checked(lowering, node, kind)
    x, w, r = given[:3]
    if not isinstance(w, Constant) or not isinstance(r, Constant):
        raise OnnxError("W or R is no constant")
    if isinstance(x, Constant) or len(x.type.shape) != 3:
        raise OnnxError("X is no tensor of three axes")
    steps = x.type.shape[0]
    lengths = known(lowering, node, 4, "sequence_lens")
    if lengths is not None and (lengths != steps).any():
        raise OnnxError(f"sequence_lens={lengths.tolist()}, lpgen has whole sequences of {steps}")
    sides = [_codes(given, 1, 8), _codes(given, 2, 10)] if _DYNAMIC in node.op_type else [w, r]
    cell = LstmCell if lstm else GruCell
    columns = w.array.shape[2 if _DYNAMIC in node.op_type else 1] // cell.GATES
    bias = known(lowering, node, 3, "B")
    size = cell.GATES * columns
    bias = np.zeros((len(directions), 2 * size), np.float32) if bias is None else bias
    hidden, last = [], []
    for d, backwards in enumerate(directions):
        x_bias, r_bias = bias[d, :size], bias[d, size:]
        if lstm:
            x_bias, r_bias = x_bias + r_bias, np.zeros_like(r_bias)
        name = f"{lowering.current}:{d}" if d else lowering.current
        run = _Direction(
            *(lowering, node, name, x, *(_matrix(side, d) for side in sides)),
            *(x_bias, r_bias, cell, late),
        )
        kept = run.sizes[1:]
        h = _initial(lowering, given[5], d, kept)
        c = _initial(lowering, given[6], d, kept) if lstm else None
        states, c = run.run(h, c, backwards)
        hidden.append(states)
        last.append((states[0 if backwards else -1], c))
    y = [_stacked(lowering, f"{lowering.current}:y", states, 0, 2) for states in hidden]
    results = [parts.concatenated(lowering, f"{lowering.current}:y", y, 1)]
    for place in range(2 if lstm else 1):
        ends = [state[place] for state in last]
        results.append(_stacked(lowering, f"{lowering.current}:end", ends, 0, 1))
    return results


def _checked(lowering: Lowering, node: onnx.NodeProto, kind: str) -> tuple[tuple[bool, ...], bool]:
    """The directions, and whether a GRU resets its state before the product; OnnxError for what is
    not served."""
    known_ones = dict.fromkeys(("activation_alpha", "activation_beta", "clip", "hidden_size"))
    more = {"input_forget": 0} if kind == "LSTM" else {"linear_before_reset": 0}
    found = attributes(node, activations=None, direction="forward", layout=0, **known_ones, **more)
    if found["direction"] not in DIRECTIONS:
        raise OnnxError(f"direction={found['direction']} is none of {', '.join(DIRECTIONS)}")
    directions = DIRECTIONS[found["direction"]]
    functions = [name.decode(errors="replace") for name in found["activations"] or ()]
    usual = [*_USUAL[kind]] * len(directions)
    if functions not in ([], usual):
        raise OnnxError(f"activations={functions}, lpgen has {', '.join(usual)}")
    for name in ("activation_alpha", "activation_beta", "clip", "layout", "input_forget"):
        if found.get(name):
            raise OnnxError(f"{name}={found[name]}, lpgen has none")
    if kind == "LSTM" and (weights := known(lowering, node, 7, "P")) is not None and weights.any():
        raise OnnxError("P, weights of peepholes, lpgen has none")
    return directions, kind == "GRU" and not found["linear_before_reset"]


def _codes(given: Sequence[Value | None], place: int, scale: int) -> Constant:
    """Weights [directions, k, gates * columns] of DynamicQuantizeLSTM."""
    w, how, zero = given[place], given[scale], given[scale + 1]
    if not isinstance(how, Constant) or not isinstance(zero, Constant | None):
        raise OnnxError("scales or zero points of weights are no constants")
    form = FORMATS.get(w.type.dtype)
    if form is None:
        raise OnnxError(f"weights have type {w.type.dtype}, lpgen has {', '.join(FORMATS)}")
    directions = w.array.shape[0]
    scales = how.array.reshape(directions, -1).astype(np.float32)
    zeros = np.zeros_like(scales) if zero is None else zero.array.reshape(directions, -1)
    whole = (w.array.astype(np.float32) - zeros[:, None, :]) * scales[:, None, :]
    scaled = Scale(scales, zeros.astype(form.dtype), 2)
    return Constant(whole.transpose(0, 2, 1), w.array.transpose(0, 2, 1), scaled, form)


def _matrix(w: Constant, direction: int) -> Constant:
    """The weights [k, gates * columns] of a direction."""
    array = np.ascontiguousarray(w.array[direction].T)
    if w.codes is None or w.scale is None:
        return Constant(array)
    codes, scale = np.ascontiguousarray(w.codes[direction].T), w.scale
    if not scale.single:
        numbers = {0: lambda v: v[direction : direction + 1], 2: lambda v: v[direction]}
        pick = numbers.get(scale.axis, lambda v: v)
        zero = pick(scale.zero) if scale.zero.size > 1 else scale.zero
        scale = Scale(pick(scale.scale).reshape(-1), zero.reshape(-1), 1)
    return replace(w, array=array, codes=codes, scale=scale)


def _columns(w: Constant, start: int, stop: int) -> Constant:
    """Some columns of a matrix of weights."""
    array = np.ascontiguousarray(w.array[:, start:stop])
    if w.codes is None or w.scale is None:
        return Constant(array)
    codes, scale = np.ascontiguousarray(w.codes[:, start:stop]), w.scale
    numbers = (v if v.size == 1 else v[start:stop] for v in (scale.scale, scale.zero))
    return replace(w, array=array, codes=codes, scale=Scale(*numbers, scale.axis))


def _initial(
    lowering: Lowering, value: Value | None, direction: int, shape: tuple[int, int]
) -> Stored | Constant:
    """A state [batch, columns] of a direction before the first step."""
    if value is None:
        return Constant(np.zeros(shape, np.float32))
    if isinstance(value, Constant):
        return Constant(value.array[direction].astype(np.float32))
    part = parts.sliced(lowering, f"{lowering.current}:first", value, {0: (direction, 1, 1)})
    tensor = lowering.reshaped(lowering.tensor(part), shape)
    return lowering.ordered(tensor, range(2))


def _stacked(
    lowering: Lowering, name: str, tensors: Sequence[Stored], axis: int, more: int
) -> Stored:
    """Tensors side by side on a new axis, with so many new ones in front."""
    wide = [lowering.reshaped(tensor, (*[1] * more, *tensor.type.shape)) for tensor in tensors]
    return parts.concatenated(lowering, name, wide, axis)


RULES = {"LSTM": layer, "GRU": layer, "com.microsoft.DynamicQuantizeLSTM": layer}
