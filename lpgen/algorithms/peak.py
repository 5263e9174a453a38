"""What a probe of a CPU's compute peak hands on: a loop of instructions on registers only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvm import IRModule


@dataclass(frozen=True)
class Peak:
    """A loop that does nothing but multiply and add, as fast as an ISA family can.

    instruction: what it repeats, in words, such as "vpdpbusd zmm"; ops: operations of one call;
    module: an IRModule whose PrimFunc "main" has the buffers (x, packed, y): uint8[64] twice, the
    operands, and int32[outputs], where the sums end.
    """

    instruction: str
    ops: int
    outputs: int
    module: IRModule
