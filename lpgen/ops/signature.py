"""Signature of a kernel: its arguments in order, each with its role, shape, dtype and limits.

Lowering, the C functions, the manifest and the runtime iterate over it: nothing else knows how many
arguments a kernel has, or where one of them stands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from lpgen.formats import Format, Real

if TYPE_CHECKING:
    from lpgen.ops.parameter import Parameter

ALIGNMENT = 64
"""Packed weights and scratch memory start on this boundary (bytes); tensors on any."""


class Role(StrEnum):
    """Part that an argument plays in a call."""

    INPUT = "input"
    """A tensor that is read."""
    PACKED = "packed"
    """The packed weights."""
    SCALAR = "scalar"
    """An int32 that is given by value at each call."""
    OUTPUT = "output"
    """A tensor that is written."""


class Limits(NamedTuple):
    """Numbers that an argument may hold: low..high in steps of `step`, or those of `book`.

    zeros: bits of each that have to be 0.
    """

    low: float
    high: float
    step: int = 1
    book: tuple[int, ...] = ()
    zeros: int = 0

    @classmethod
    def of_format(cls, form: Format | Real) -> Self:
        """The values of a format."""
        return cls(form.min, form.max, form.step, form.book)

    @classmethod
    def of_parameter(cls, parameter: Parameter) -> Self:
        """The values of a parameter."""
        return cls(parameter.low, parameter.high, zeros=parameter.zeros)


@dataclass(frozen=True)
class Argument:
    """One argument of a function.

    shape: dense and row-major; () for a scalar. dtype: NumPy's name of it. format: what its values
    are, for people ("u4:planes"), "" where the dtype says it all. limits: of its values, where
    there are other than those of the dtype; only those of scalars and of what is packed are
    checked. alignment: bytes of which its address is a multiple; 1: any that suits the dtype.
    rows: the scalar that is its first extent at a call, of which `shape` has the largest; "": none.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    dtype: str
    format: str = ""
    limits: Limits | None = None
    alignment: int = 1
    rows: str = ""

    @classmethod
    def of_values(
        cls, name: str, shape: tuple[int, ...], form: Format | Real, role: Role = Role.INPUT
    ) -> Self:
        """A tensor of values of a format, one in an element."""
        limits = Limits.of_format(form) if isinstance(form, Format) else None
        return cls(name, role, shape, form.dtype, str(form), limits)

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def scalar(name: str, low: int, high: int) -> Argument:
    """An int32 of low..high that is given at each call."""
    return Argument(name, Role.SCALAR, (), "int32", limits=Limits(low, high))


def packed_weights(nbytes: int = 0) -> Argument:
    """The packed weights; 0 bytes: a layout will say how many (`Signature.sized`)."""
    return Argument("packed", Role.PACKED, (nbytes,), "uint8", alignment=ALIGNMENT)


@dataclass(frozen=True)
class Signature:
    """The arguments of a function in their order. Names are unique; outputs come last."""

    arguments: tuple[Argument, ...]

    def __iter__(self) -> Iterator[Argument]:
        return iter(self.arguments)

    def __len__(self) -> int:
        return len(self.arguments)

    def of_role(self, *roles: Role) -> tuple[Argument, ...]:
        """The arguments of these roles, in order."""
        return tuple(argument for argument in self if argument.role in roles)

    @property
    def inputs(self) -> tuple[Argument, ...]:
        """The tensors that are read, but for the packed weights."""
        return self.of_role(Role.INPUT)

    @property
    def scalars(self) -> tuple[Argument, ...]:
        """The numbers that are given at each call."""
        return self.of_role(Role.SCALAR)

    @property
    def outputs(self) -> tuple[Argument, ...]:
        """The tensors that are written."""
        return self.of_role(Role.OUTPUT)

    @property
    def output(self) -> Argument:
        """The only tensor that is written."""
        (only,) = self.outputs
        return only

    @property
    def rows(self) -> Argument | None:
        """The scalar that is the first extent of some tensors, None: all have one shape."""
        names = {argument.rows for argument in self}
        return next((a for a in self.scalars if a.name in names), None)

    @property
    def packed(self) -> Argument | None:
        """The packed weights, None for a kernel that has none."""
        return next(iter(self.of_role(Role.PACKED)), None)

    def sized(self, nbytes: int) -> Signature:
        """The same with packed weights of so many bytes."""
        return Signature(
            tuple(replace(a, shape=(nbytes,)) if a.role == Role.PACKED else a for a in self)
        )

    def ordered(self, values: Mapping[str, Any]) -> list[Any]:
        """What `values` has for each argument, by its name."""
        return [values[argument.name] for argument in self]


def of_packer(
    shape: tuple[int, ...], form: Format, parameters: Mapping[str, Parameter], nbytes: int
) -> Signature:
    """(weights, parameters, packed): what packs weights of this shape and format into so many
    bytes, the parameters with them."""
    weights = (shape, form.dtype, str(form), Limits.of_format(form))
    given = [
        Argument(name, Role.INPUT, p.shape, p.dtype, limits=Limits.of_parameter(p))
        for name, p in parameters.items()
    ]
    packed = replace(packed_weights(nbytes), role=Role.OUTPUT)
    return Signature((Argument("weights", Role.INPUT, *weights), *given, packed))
