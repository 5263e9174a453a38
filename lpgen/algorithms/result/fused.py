"""Packed weights with the parameters of an epilogue behind them, packed in NumPy and in TIR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from tvm import te, tirx

from lpgen.algorithms.kernel import Layout
from lpgen.algorithms.sections import Section, Sectioned, joined_contents, joined_packers
from lpgen.algorithms.weights import sparse as outliers
from lpgen.ops import hadamard

if TYPE_CHECKING:
    from tvm import IRModule

    from lpgen.algorithms.result.epilogue import Epilogue
    from lpgen.ops import Operator


@dataclass(frozen=True)
class FusedLayout(Sectioned):
    """Packed weights in the order of `weights`, with an epilogue's parameters behind them."""

    weights: Layout
    epilogue: Epilogue

    @cached_property
    def sections(self) -> list[Section]:
        """Parts of the packed bytes, in order."""
        return [*self.weights.sections, *self.epilogue.sections]

    def pack(self, w: np.ndarray, **parameters: np.ndarray) -> np.ndarray:
        """The packed bytes of weight values `w` and the parameters."""
        own = parameters if self.epilogue.op.group_size else {}
        behind = joined_contents(self.epilogue.sections, self._contents(w, parameters))
        return np.concatenate([self.weights.pack(w, **own), behind])

    def _contents(self, w: np.ndarray, parameters: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The contents of the epilogue's sections."""
        e = self.epilogue
        values = dict(e.op.legal_parameters(parameters))
        if "input_scale" in values:
            values["input_inverse"] = _unit(e.op) / values["input_scale"]
        if "thresholds" in values:
            values["flip"] = np.minimum(values["direction"], 0).astype(np.int32)
            values |= {
                f"threshold{i}": column ^ values["flip"]
                for i, column in enumerate(values["thresholds"].T)
            }
        if e.op.outliers:
            values |= outliers.Geometry(e.op).pack(values)
        compensation = -e.zero * self._sums(w)
        if e.integer_bias:
            compensation += values.pop("bias")
        values["compensation"] = compensation.astype(np.int32)  # modulo 2^32, as the sums are

        def spread(values: np.ndarray, section: Section) -> np.ndarray:
            if len(section.shape) == 1:
                return values
            wide = np.zeros(section.shape, section.dtype)
            wide[..., : e.columns] = np.reshape(values, (*section.shape[:-1], e.columns))
            return wide

        return [spread(values[section.name], section) for section in e.sections]

    def _sums(self, w: np.ndarray) -> np.ndarray:
        """The sum of each column's weights: of those inside, for each class, or of all."""
        e = self.epilogue
        if e.inside is None:
            return w.reshape(e.groups * e.columns, -1).sum(axis=1, dtype=np.int64)
        taps = w.sum(axis=3, dtype=np.int64)
        return np.array([taps[:, slice(*r), slice(*s)].sum((1, 2)) for r, s in e.inside.ranges()])

    def te_module(self) -> IRModule:
        """The packer as TIR: "main"(weights, *parameters, packed), see `Layout`."""
        e = self.epilogue
        columns = (e.groups, e.columns)
        k = e.op.matrix.k * e.op.planes
        w = te.placeholder((*columns, k), e.op.weight.dtype, name="w")
        given = {}
        for name, p in e.own_parameters.items():
            shape = (1,) if e.single(name) else (*columns, *p.shape[1:])
            given[name] = te.placeholder(shape, p.dtype, name=f"{name}_in")
        values = _values(e, w, given)
        entries = {}
        if e.op.outliers:
            sparse = outliers.parameters(e.op)
            entries = outliers.Geometry(e.op).te_pack(sparse)
            given |= sparse

        def section(s: Section) -> te.Tensor:
            if s.name in entries:
                return entries[s.name]
            value = values(s)
            if s.shape == (1,):
                return te.compute(s.shape, value, name=s.name)
            zero = tirx.const(0, s.dtype)
            return te.compute(
                s.shape,
                lambda *i: te.if_then_else(i[-1] < e.columns, value(*i).astype(s.dtype), zero),
                name=s.name,
            )

        outputs = [section(s) for s in e.sections]
        own = te.create_prim_func([w, *given.values(), *outputs])
        return joined_packers(e.op, self.weights.te_module()["main"], own, self.sections)


def _unit(op: Operator) -> np.float32:
    """What a static scale divides: 1, or what a rotation leaves to it."""
    return hadamard.factor(op.hadamard) if op.hadamard else np.float32(1)


def _values(e: Epilogue, w: te.Tensor, given: dict[str, te.Tensor]):
    """of(section): the function from an index to the section's value."""
    sums = _sums(e, w)

    def compensation(*place):
        value = sums[place] * tirx.const(-e.zero, "int32")
        return value + given["bias"][place[-2:]] if e.integer_bias else value

    def flip(g, n):
        return te.min(given["direction"][g, n], tirx.const(0, "int8")).astype("int32")

    def of(s: Section):
        if s.name == "compensation":
            return compensation
        if s.name == "input_inverse":
            return lambda i: tirx.const(_unit(e.op), "float32") / given["input_scale"][i]
        if s.name == "flip":
            return flip
        if s.name.startswith("threshold"):
            number = int(s.name.removeprefix("threshold"))
            return lambda g, n: given["thresholds"][g, n, number] ^ flip(g, n)
        return lambda *i: given[s.name][i]

    return of


def _sums(e: Epilogue, w: te.Tensor) -> te.Tensor:
    """The sum of each column's weights: of those inside, for each class, or of all."""
    k = te.reduce_axis((0, e.op.matrix.k), name="k")
    if e.inside is None:
        return te.compute(
            (e.groups, e.columns), lambda g, n: te.sum(w[g, n, k].astype("int32"), axis=[k])
        )
    width, channels = e.op.kernel[1], e.op.ic // e.op.groups
    r, s = k // (width * channels), k // channels % width

    def inside(number):
        """Whether the tap is, in that class."""
        found = tirx.const(False, "bool")
        for i, ((top, bottom), (left, right)) in enumerate(e.inside.ranges()):
            taps = tirx.all(number == i, r >= top, r < bottom, s >= left, s < right)
            found = tirx.any(found, taps)
        return found

    def total(number, g, n):
        value = tirx.Select(inside(number), w[g, n, k].astype("int32"), tirx.const(0, "int32"))
        return te.sum(value, axis=[k])

    return te.compute((e.inside.classes, e.groups, e.columns), total)
