"""Sections of packed weights: arrays that lie one behind the other in the packed bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tvm
from tvm import te, tirx

from lpgen.ops.signature import ALIGNMENT, Argument, packed_weights
from lpgen.tir.views import wrapped

if TYPE_CHECKING:
    from lpgen.ops import Operator


@dataclass(frozen=True)
class Section:
    """Section of the packed weights: one array."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def joined_sections(sections: list[Section]) -> tuple[list[int], int]:
    """(offset of each section, size of all) in bytes, each on an ALIGNMENT boundary."""
    offsets, end = [], 0
    for section in sections:
        offsets.append(end)
        end += -(-section.nbytes // ALIGNMENT) * ALIGNMENT
    return offsets, end


def joined_contents(sections: list[Section], contents: Iterable[np.ndarray]) -> np.ndarray:
    """The bytes of sections with those contents, which become their dtypes, as uint8[size]."""
    offsets, nbytes = joined_sections(sections)
    packed = np.zeros(nbytes, np.uint8)
    for values, section, offset in zip(contents, sections, offsets, strict=True):
        data = np.ascontiguousarray(values, section.dtype).ravel().view(np.uint8)
        packed[offset : offset + data.size] = data
    return packed


class Sectioned:
    """Packed-weight layout in `sections`: their size, and their contents as one array of bytes."""

    sections: list[Section]
    """Parts of the packed bytes, in order."""

    @property
    def nbytes(self) -> int:
        """Size of the packed bytes, every section on an ALIGNMENT boundary."""
        return joined_sections(self.sections)[1]

    def bytes_of(self, contents: Iterable[np.ndarray]) -> np.ndarray:
        """The packed bytes, uint8[nbytes], of the contents of each section."""
        return joined_contents(self.sections, contents)


def placeholders(sections: Sequence[Section]) -> list[te.Tensor]:
    """Placeholders of sections in the definition of a kernel."""
    return [te.placeholder(s.shape, s.dtype, name=s.name) for s in sections]


def argument_buffer(argument: Argument) -> tirx.Var:
    """The buffer of a tensor of a signature."""
    alignment = argument.alignment if argument.alignment > 1 else -1  # -1: TVM's own
    name = argument.name
    return tirx.decl_buffer(argument.shape, argument.dtype, name, data_alignment=alignment)


def pack_entry(
    w: te.Tensor,
    outputs: list[te.Tensor],
    sections: list[Section],
    shape: tuple[int, ...],
    dtype: str,
    given: Sequence[te.Tensor] = (),
) -> tvm.IRModule:
    """The module with "main"(weights, *given, packed) that computes `outputs`, the sections, from
    the weights `w` and the parameters `given`."""
    func = te.create_prim_func([w, *given, *outputs])
    offsets, nbytes = joined_sections(sections)
    outer_w = tirx.decl_buffer(shape, dtype, name="weights")
    packed = argument_buffer(packed_weights(nbytes))
    outer = [tirx.decl_buffer(p.shape, p.dtype, name=p.op.name) for p in given]
    inner_w, *inner = func.params
    views = [(inner_w, outer_w, 0)]
    views += [(i, o, 0) for i, o in zip(inner[: len(outer)], outer, strict=True)]
    views += [(s, packed, o) for s, o in zip(inner[len(outer) :], offsets, strict=True)]
    return wrapped(func, [func.body], [outer_w, *outer, packed], views)


def joined_packers(
    op: Operator, weights: tirx.PrimFunc, own: tirx.PrimFunc, sections: list[Section]
) -> tvm.IRModule:
    """The module with "main" in the packer's signature, (weights, *parameters, packed): the packer
    `weights`(weights, *the first parameters, packed), then `own`(weights, *the other ones, *its
    sections, the last ones)."""
    offsets, nbytes = joined_sections(sections)
    arguments = [*map(argument_buffer, op.packing(nbytes))]
    w, *given, packed = arguments
    own_w, *rest = own.params
    first = len(weights.params) - 2
    other = given[first:]
    inner_given, inner_sections = rest[: len(other)], rest[len(other) :]
    places = offsets[-len(inner_sections) :]
    views = [
        *((i, o, 0) for i, o in zip(weights.params, (w, *given[:first], packed), strict=True)),
        (own_w, w, 0),
        *((inner, outer, 0) for inner, outer in zip(inner_given, other, strict=True)),
        *((s, packed, o) for s, o in zip(inner_sections, places, strict=True)),
    ]
    return wrapped(weights, [weights.body, own.body], arguments, views)
