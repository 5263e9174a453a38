"""Scheduled kernel, as every template gives it, and the layout of the weights that it reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

from lpgen.ops.rows import Range, largest
from lpgen.ops.signature import Argument, Role, Signature

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    def functions(self) -> list[Function]:
        """All that compute: one, or the bodies of a `RangedKernel`."""
        return [self.function]

    @property
    def packer(self) -> Function | None:
        """What packs the weights, where there are any."""
        if self.layout is None:
            return None
        return Function(self.layout.te_module(), self.op.packing(self.layout.nbytes))


class Body(NamedTuple):
    """What serves some sizes of a ranged operator: as many rows as `module` has, or of a Range as
    many as its last scalar says."""

    rows: int | Range
    module: IRModule

    def take(self, left: int) -> int:
        """How many rows one call computes where so many are left."""
        return min(left, largest(self.rows))


class Step(NamedTuple):
    """A call of a body: number, for `rows` rows from row `first` on."""

    first: int
    rows: int
    body: int


@dataclass(frozen=True)
class RangedKernel(Kernel):
    """A kernel of an operator with a range of sizes (`ops.rows`): bodies for some of them each, all
    of which read the same packed weights.

    plan: which body computes the next rows where so many are left; for more than it has entries,
    the last one. module: that of the last body.
    """

    bodies: tuple[Body, ...] = ()
    plan: tuple[int, ...] = ()

    @classmethod
    def of(cls, op: Any, bodies: Sequence[Body], plan: Sequence[int], layout: Layout) -> Self:
        """From what it is made of."""
        return cls(op, bodies[-1].module, layout, tuple(bodies), tuple(plan))

    @property
    def functions(self) -> list[Function]:
        """The bodies."""
        signatures = [self.op.with_rows(body.rows).signature for body in self.bodies]
        return [
            Function(body.module, signature.sized(self.packed_bytes))
            for body, signature in zip(self.bodies, signatures, strict=True)
        ]

    def steps(self, rows: int) -> Iterator[Step]:
        """The calls that compute so many rows."""
        first = 0
        while first < rows:
            number = self.plan[min(rows - first, len(self.plan) - 1)]
            taken = self.bodies[number].take(rows - first)
            yield Step(first, taken, number)
            first += taken
