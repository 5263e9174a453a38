"""Scheduled kernel, as every template gives it, and the layout of the weights that it reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from lpgen.ops.signature import Argument, Role, Signature

if TYPE_CHECKING:
    from tvm import IRModule


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
        """A module whose PrimFunc "main" has the arguments of `Operator.packing`:
        the weights, the parameters, the packed weights. Packing is not timed: plain loops do."""
        ...


@dataclass(frozen=True)
class Function:
    """A PrimFunc "main", scheduled, and its arguments: a buffer for each tensor, an int32 variable
    for each scalar, in the order of the signature."""

    module: IRModule
    signature: Signature

    @classmethod
    def of_module(cls, module: IRModule) -> Function:
        """A function whose arguments are its buffers, at any address; the last one is written."""
        buffers = module["main"].params
        arguments = [
            Argument(b.name, Role.INPUT, tuple(map(int, b.shape)), str(b.dtype)) for b in buffers
        ]
        last = replace(arguments.pop(), role=Role.OUTPUT)
        return cls(module, Signature((*arguments, last)))


@dataclass(frozen=True)
class Kernel:
    """A scheduled kernel, ready to be lowered.

    module: an IRModule whose PrimFunc "main" has the arguments of `signature`; layout: that of its
    packed weights, None for an operator that has none.
    """

    op: Any
    module: IRModule
    layout: Layout | None

    @cached_property
    def signature(self) -> Signature:
        """The operator's arguments, the packed weights with the size that the layout says."""
        return self.op.signature.sized(self.packed_bytes)

    @property
    def packed_bytes(self) -> int:
        """Size of the packed weights, 0: it has none."""
        return 0 if self.layout is None else self.layout.nbytes

    @property
    def function(self) -> Function:
        """What computes."""
        return Function(self.module, self.signature)

    @property
    def packer(self) -> Function | None:
        """What packs the weights, where there are any."""
        if self.layout is None:
            return None
        return Function(self.layout.te_module(), self.op.packing(self.layout.nbytes))
