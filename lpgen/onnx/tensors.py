"""Tensors and steps of a network that grows: where each lies in memory, and what moves it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lpgen.errors import LpgenError, OnnxError
from lpgen.formats import Format
from lpgen.network import Step, TensorType
from lpgen.onnx.axes import MOST_TURNS, few_axes, reshaped_order, turns
from lpgen.onnx.imported import Imported, Relayout, inverse
from lpgen.onnx.linear import FORMATS
from lpgen.onnx.values import Mapped, Pending, Recoded, Stored, Target, Value
from lpgen.ops import DequantizeLinear
from lpgen.ops.lookup import Lookup
from lpgen.ops.movement import Gather, Transpose

MOST_ELEMENTS = 2**28
"""Of a tensor whose elements are repeated: their places are kept."""


class Tensors:
    """The steps so far, in order.

    taken: names of tensors, of which each has another one; quantized: for codes that were only
    quantized, by name, the tensor of float32 and how; repeated: for tensors whose elements are
    repeated along axes, those with one place on these.
    """

    def __init__(self, inputs: Iterable[str]) -> None:
        self.steps: list[Step] = []
        self.taken = set(inputs)
        self.quantized: dict[str, tuple[Stored, Target]] = {}
        self.repeated: dict[str, Stored] = {}
        self.current = ""  # the node whose steps these are
        self._waited: tuple[str, ...] = ()  # those whose result waited until now
        self._made: dict[Hashable, tuple[Stored, Value]] = {}
        self._moves: dict[Hashable, Stored] = {}

    @staticmethod
    def stored(
        name: str, kind: TensorType, order: Sequence[int] = (), form: Format | None = None
    ) -> Stored:
        """A tensor in memory; order: the natural one by default."""
        order = tuple(order) or tuple(range(len(kind.shape)))
        return Stored(name, kind, order, form or FORMATS.get(kind.dtype))

    def tensor(self, value: Value, name: str = "") -> Stored:
        """A value in memory as what it is: float32 where it only waits or is a function of codes.
        name: of the tensor, where a step has to make it."""
        if isinstance(value, Stored):
            return value
        if isinstance(value, Pending):
            return self.once(value, "real", lambda: value.real(self, name or self.current))
        if isinstance(value, Recoded):
            return self._looked_up(value)
        if isinstance(value, Mapped):
            return self.once(value, "real", lambda: self._real(value, name))
        raise OnnxError(getattr(value, "UNREAD", "a constant is read as a tensor"))

    def affine(self, value: Value | None) -> Mapped | None:
        """The value as a tensor of codes with one scale, None where it is none."""
        if isinstance(value, Mapped) and value.scale is None and value.made_of:
            recoded, scale = value.made_of
            value = Mapped.of(self._looked_up(recoded), scale)
        return value if isinstance(value, Mapped) and value.scale is not None else None

    def _looked_up(self, value: Recoded) -> Stored:
        """Codes that the step of a table makes, once for all that read them."""
        codes, form = value.codes, value.form
        key = (codes.name, codes.type.shape, codes.order, str(form), value.table.tobytes())
        if key not in self._moves:
            assert codes.form
            op = Lookup(size=math.prod(codes.type.shape), act=codes.form, out=form)
            made = self.step(value.name, op, {"x": codes}, constants={"table": value.table})
            self._moves[key] = Stored(made, value.type, codes.order, form)
        return self._moves[key]

    def _real(self, value: Mapped, name: str) -> Stored:
        """The step that gives a function of codes as float32."""
        affine = self.affine(value)
        if affine is None or affine.scale is None:
            op = Lookup(size=math.prod(value.type.shape), act=value.form, out="f32")
            constants = {"table": value.table.astype(np.float32)}
            name = name or f"{value.codes.name}:mapped"
            made = self.step(name, op, {"x": value.codes}, constants=constants)
            return Stored(made, value.type, value.codes.order)
        codes, scale = affine.codes, affine.scale
        op = DequantizeLinear(axis=math.prod(codes.type.shape), format=codes.form)
        constants = {
            "scale": scale.scale.reshape(1),
            "zero": scale.zero.reshape(1).astype(codes.form.dtype),
        }
        made = self.step(name or f"{codes.name}:real", op, {"x": codes}, constants=constants)
        return Stored(made, value.type, codes.order)

    def ordered(self, tensor: Stored, order: Sequence[int]) -> Stored:
        """The tensor with its axes in this order in memory: itself, or a step moves it."""
        order = tuple(order)
        if tensor.lies(order):
            return replace(tensor, order=order)
        key = (tensor.name, tensor.type.shape, tensor.order, order)
        if key not in self._moves:
            self._moves[key] = self.moved(tensor, order)
        return self._moves[key]

    def moved(self, tensor: Stored, order: tuple[int, ...]) -> Stored:
        """What moves the tensor; float32 that was only quantized is moved and quantized at once."""
        source, to = self.quantized.get(tensor.name, (tensor, None))
        if source.type.shape != tensor.type.shape or source.order != tensor.order:
            source, to = tensor, None  # seen in another shape since
        axes = tuple(source.order.index(axis) for axis in order)
        shape, axes = few_axes(source.memory.shape, axes)
        op = Transpose(shape=shape, axes=axes, dtype=source.type.dtype)
        constants = {}
        if to is not None:
            op = replace(op, out=to.form)
            constants = {"scales": np.float32([to.scale]), "zeros": np.int32([to.zero])}
        name = f"{tensor.name}:{''.join(map(str, order))}"
        made = self.step(name, op, {"x": source}, constants=constants)
        return Stored(made, tensor.type, order, tensor.form)

    def reshaped(self, tensor: Stored, shape: Sequence[int]) -> Stored:
        """The tensor in another shape: nothing moves where axes that are merged or split lie
        together; else a step brings it into its natural order."""
        shape = tuple(shape)
        order = reshaped_order(tensor, shape)
        if order is None:
            tensor = self.ordered(tensor, range(len(tensor.order)))
            order = tuple(range(len(shape)))
        return Stored(tensor.name, TensorType(shape, tensor.type.dtype), order, tensor.form)

    def aligned(self, tensors: Sequence[Stored]) -> list[Stored]:
        """Tensors that are broadcast with each other, with as many axes in the same order in
        memory: that of the largest one. Where they take turns in being broadcast more often than
        operators have extents, those that are broadcast are repeated."""
        lead = max(tensors, key=lambda t: (len(t.order), math.prod(t.type.shape)))
        axes = len(lead.order)
        wide = [(*[1] * (axes - len(t.order)), *t.type.shape) for t in tensors]
        pairs = zip(tensors, wide, strict=True)
        laid = [self.ordered(self.reshaped(t, shape), lead.order) for t, shape in pairs]
        if len(laid) == 2 and len(turns(*(t.memory.shape for t in laid))) > MOST_TURNS:
            whole = np.broadcast_shapes(*wide)
            laid = [self.repeated_to(t, whole) for t in laid]
        return laid

    def repeated_to(self, x: Stored, shape: tuple[int, ...], name: str = "") -> Stored:
        """The tensor repeated along the axes of which it has one place, in its order in memory.
        name: of the result."""
        if x.type.shape == shape:
            return x
        if math.prod(shape) > MOST_ELEMENTS:
            raise OnnxError(f"{x.name} is repeated to {list(shape)}, more than {MOST_ELEMENTS}")
        own, wanted = x.memory.shape, tuple(shape[axis] for axis in x.order)
        whole = max(axis for axis, size in enumerate(own) if size != wanted[axis]) + 1
        rows, columns = math.prod(own[:whole]), math.prod(own[whole:])
        index = np.arange(rows, dtype=np.int32).reshape(own[:whole])
        index = np.ascontiguousarray(np.broadcast_to(index, wanted[:whole])).ravel()
        op = Gather(rows=rows, columns=columns, count=index.size, dtype=x.type.dtype)
        name = name or f"{x.name}:all"
        made = self.step(name, op, {"x": x}, constants={"index": index})
        result = replace(x, name=made, type=TensorType(shape, x.type.dtype))
        self.repeated[made] = x
        return result

    def once(self, value: Value, what: Hashable, make: Callable[[], Stored]) -> Stored:
        """What is made of a value, once for all that read it."""
        key = (id(value), what)
        if key not in self._made:
            nodes = value.nodes if isinstance(value, Pending) else None
            before, self._waited = self._waited, tuple(nodes.names()) if nodes else ()
            try:
                self._made[key] = (make(), value)  # the value stays: no other gets its id
            finally:
                self._waited = before
        return self._made[key][0]

    def is_made(self, value: Value) -> bool:
        """Whether some step has made what waited."""
        return any(waited is value for _, waited in self._made.values())

    def step(
        self,
        output: str,
        op: Any,
        inputs: Mapping[str, Stored],
        weights: np.ndarray | None = None,
        parameters: Mapping[str, np.ndarray] = {},
        constants: Mapping[str, np.ndarray] = {},
    ) -> str:
        """A step that writes the tensor `output`, whose name is returned (another, where there is
        one of that name already)."""
        output = self._unique(output)
        tensors = {argument: tensor.name for argument, tensor in inputs.items()}
        self.steps.append(
            Step(
                *(output, op, tensors, output, weights, dict(parameters), dict(constants)),
                tuple(dict.fromkeys((*self._waited, self.current))),
            )
        )
        return output

    def _unique(self, name: str) -> str:
        """The name, or one like it that no tensor has."""
        found, count = name, 1
        while found in self.taken:
            found, count = f"{name}:{count + 1}", count + 1
        self.taken.add(found)
        return found

    def apply(
        self,
        imported: Imported,
        name: str,
        tensors: Iterable[Stored],
        numbers: Mapping[str, np.ndarray] = {},
    ) -> Stored:
        """The step of an imported node on its tensors, in memory as ONNX has them or in another
        order; numbers: what of its scalars is always the same."""
        pairs = zip(imported.inputs.items(), tensors, strict=True)
        fed = {argument: self._fed(tensor, relayout) for (argument, relayout), tensor in pairs}
        packed = imported.weights is not None
        made = self.step(
            *(name, imported.op, fed, imported.weights, imported.parameters if packed else {}),
            constants=dict(numbers) if packed else imported.parameters,
        )
        return self._result(made, imported)

    def _fed(self, tensor: Stored, relayout: Relayout) -> Stored:
        """A tensor as an operator takes it."""
        return self.ordered(self.reshaped(tensor, relayout.view), relayout.axes)

    def _result(self, made: str, imported: Imported) -> Stored:
        """The result of an operator as ONNX sees it."""
        y, output = imported.y, imported.op.signature.output
        form = FORMATS.get(output.dtype)
        if output.format and output.format != "f32":
            try:
                form = Format.parse(output.format)
            except LpgenError:
                form = None
        seen = tuple(y.view[axis] for axis in y.axes)
        tensor = Stored(made, TensorType(seen, output.dtype), inverse(y.axes), form)
        return self.reshaped(tensor, y.shape)
