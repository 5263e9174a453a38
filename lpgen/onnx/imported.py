"""Kinds of nodes, and what becomes of a node: an operator, its constants, the order of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lpgen.errors import OnnxError
from lpgen.ops import Operator


class NodeKind(NamedTuple):
    """Nodes of one operator of ONNX.

    names: what we call the inputs behind the first one, in the order of the node; convert: what
    imports it, from the type of the first input, the others and the attributes by their names;
    tensors: those of names that every call may give, and "x" where the first may be constant;
    required: those that have to be there, of a domain whose nodes ONNX's checker does not know.
    """

    names: tuple[str, ...]
    convert: Callable[..., Imported]
    domain: str = ""
    tensors: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relayout:
    """The way from one tensor to another: of shape `given`, seen in shape `view`, its axes in the
    order `axes`, in the end of shape `shape`."""

    given: tuple[int, ...]
    view: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """The other tensor, dense; a view of the same memory where nothing has to move. Raises
        OnnxError for a tensor of another shape."""
        array = np.asarray(array)
        if array.shape != self.given:
            raise OnnxError(f"the tensor has shape {array.shape}, expected {self.given}")
        moved = array.reshape(self.view).transpose(self.axes)
        return np.ascontiguousarray(moved).reshape(self.shape)

    @property
    def moves(self) -> bool:
        """Whether elements change their places."""
        order = [axis for axis in self.axes if self.view[axis] > 1]
        return order != sorted(order)


def same(given: tuple[int, ...], shape: tuple[int, ...]) -> Relayout:
    """Another shape of a tensor in which nothing moves."""
    return Relayout(given, given, tuple(range(len(given))), shape)


def inverse(axes: Sequence[int]) -> tuple[int, ...]:
    """The order of axes that undoes `axes`."""
    return tuple(int(axis) for axis in np.argsort(axes))


@dataclass(frozen=True)
class Imported:
    """A node as an operator.

    inputs: from the node's tensors, in its order, to the operator's inputs of these names; y: from
    the operator's result to that of the node. weights: in the operator's layout and dtype, and
    parameters: as `op.parameters` has them; for an operator without weights those of its inputs
    that are constant.
    """

    op: Operator
    inputs: dict[str, Relayout] = field(repr=False)
    y: Relayout = field(repr=False)
    weights: np.ndarray | None = None
    parameters: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def x(self) -> Relayout:
        """From the node's first tensor to the operator's."""
        return next(iter(self.inputs.values()))

    def given(self, *tensors: np.ndarray) -> dict[str, np.ndarray]:
        """What a call of the kernel is given for the node's tensors, but for packed weights."""
        pairs = zip(self.inputs.items(), tensors, strict=True)
        constant = {} if self.weights is not None else self.parameters
        return {name: relayout(tensor) for (name, relayout), tensor in pairs} | constant

    def reference(self, *tensors: np.ndarray) -> np.ndarray:
        """The node's result for its tensors, by the operator's oracle."""
        weights = {} if self.weights is None else {"w": self.weights} | self.parameters
        return self.y(self.op.reference(**self.given(*tensors), **weights))
