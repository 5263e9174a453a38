"""What every template hands on: a scheduled kernel and the layout of the weights it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from tvm import IRModule

ALIGNMENT = 64
"""Packed weights and scratch memory start on this boundary (bytes); x and y on any."""


@runtime_checkable
class Layout(Protocol):
    """How a kernel wants its weights: any number of bytes, in any order.

    The same packing exists twice: `pack` in NumPy, for the tuner and the tests, and `te_module`
    as TIR, which is compiled into the library. Both give the same bytes.
    """

    @property
    def nbytes(self) -> int:
        """Size of the packed weights in bytes."""
        ...

    def pack(self, w: np.ndarray, **parameters: np.ndarray) -> np.ndarray:
        """The packed weights (uint8[nbytes]) of the weight values `w` (op.w_shape, one a byte) and
        the parameters (op.parameters)."""
        ...

    def te_module(self) -> IRModule:
        """A module whose PrimFunc "main" has the buffers (w, packed, *parameters).

        w: op.w_shape, op.weight.dtype, at any address; packed: uint8[nbytes] on a 64-byte
        boundary; parameters: as op.parameters names them, in its order. Packing is not timed: plain
        loops do.
        """
        ...


@dataclass(frozen=True)
class Kernel:
    """A scheduled kernel, ready to be lowered.

    module: an IRModule whose PrimFunc "main" has the buffers (x, packed, y), or with a residual
        step (x, packed, residual, y):
        x: op.x_shape, op.x_dtype, at any address;
        packed: uint8[layout.nbytes] on a 64-byte boundary;
        residual: op.y_extents, op.residual.dtype, at any address;
        y: op.y_shape, op.y_dtype, at any address.
    """

    op: Any
    module: IRModule
    layout: Layout
