"""What becomes of a node: an operator, its weights and parameters, and the order of its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lpgen.errors import OnnxError
from lpgen.ops import Operator


class TensorType(NamedTuple):
    """Shape and NumPy dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: str


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


def inverse(axes: Sequence[int]) -> tuple[int, ...]:
    """The order of axes that undoes `axes`."""
    return tuple(int(axis) for axis in np.argsort(axes))


@dataclass(frozen=True)
class Imported:
    """A node as an operator.

    weights: [op.w_shape] in the operator's layout and dtype; parameters: as `op.parameters` has
    them; x: from the node's first input to the operator's; y: from the operator's result to that
    of the node.
    """

    op: Operator
    weights: np.ndarray
    parameters: dict[str, np.ndarray]
    x: Relayout
    y: Relayout = field(repr=False)

    def reference(self, x: np.ndarray) -> np.ndarray:
        """The node's result for its first input, by the operator's oracle."""
        return self.y(self.op.reference(self.x(x), self.weights, **self.parameters))
