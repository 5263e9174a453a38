"""Check bytes for constants beside a library: what is right there although memory flips bits.

The file LIB.weights.checks has

    magic, version, count of spans, then [first byte, bytes] of each span, then a check byte for
    each 8 bytes of every span (`runtime.ecc`), spans one behind the other

Spans are those parts of LIB.weights that have to be right: all but the codes of weights whose
layers mind errors little, so that the header, scales and biases are among them.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lpgen.build.choice import PACKED_HEADER
from lpgen.network.plan import Place, Where
from lpgen.ops.signature import Role
from lpgen.runtime import ecc

if TYPE_CHECKING:
    from lpgen.build.choice import Variant
    from lpgen.network.constants import Constants
    from lpgen.network.network import Step

SUFFIX = ".checks"
HEAD = struct.Struct("<8sQ")
MAGIC = b"lpgen-e1"
ENDS = 64
"""Spans begin and end between words of check bytes."""


def bare(
    steps: Sequence[Step],
    operands: Sequence[Sequence[Place]],
    variants: Mapping[str, Variant],
    exposed: Collection[str],
) -> list[tuple[int, int]]:
    """The parts (first, end) of constants that go without check bytes: codes of the weights of
    steps that compute some of the nodes `exposed`, and nothing else but these."""
    from lpgen.algorithms.sections import joined_sections

    found, kept = [], set()
    for step, places in zip(steps, operands, strict=True):
        for argument, place in zip(step.op.signature, places, strict=True):
            if argument.role != Role.PACKED or place.where != Where.CONSTANT:
                continue
            sections = getattr(variants[step.op.name].choice.kernel.layout, "sections", None)
            if sections is None or not exposed_step(step, exposed):
                kept.add(place.at)
                continue
            starts, _ = joined_sections(sections)
            for section, start in zip(sections, starts, strict=True):
                if np.dtype(section.dtype).itemsize == 1:
                    first = place.at + PACKED_HEADER + start
                    found.append((place.at, first, first + section.nbytes))
    return [(first, end) for at, first, end in found if at not in kept]


def exposed_step(step: Step, exposed: Collection[str]) -> bool:
    """Whether the weights of a step are those of nodes that mind errors little."""
    return any(source in exposed for source in step.sources)


def write(path: Path, constants: Constants, bare: Sequence[tuple[int, int]]) -> None:
    """The file of check bytes for constants behind a header of 64 bytes."""
    head = constants.header
    data = np.frombuffer(head + constants.bytes, np.uint8)
    spans = list(_between(len(data), [(f + len(head), e + len(head)) for f, e in bare]))
    with path.open("wb") as file:
        file.write(HEAD.pack(MAGIC, len(spans)))
        file.write(np.array(spans, "<u8").tobytes())
        for first, count in spans:
            file.write(ecc.checks(data[first : first + count]).tobytes())


def _between(size: int, bare: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """[first, count] of what is left of `size` bytes without the parts, whole words."""
    at = 0
    for first, end in sorted(set(bare)):
        first, end = -(-first // ENDS) * ENDS, end // ENDS * ENDS
        if first >= end or first < at:
            continue
        if first > at:
            yield at, first - at
        at = end
    if at < size:
        yield at, size - at
