"""How products of float32 are added up in a network: with one rounding where every CPU can.

An instruction that multiplies and adds takes as long as one that does either. It rounds once, so
that results depend on whether it is used: by a library for all its targets, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lpgen.network.network import Network, Step
from lpgen.ops.conv2d_f32 import RealConv2d
from lpgen.ops.rowwise import MatMul
from lpgen.target import Target


def rounded_for(network: Network, targets: Sequence[Target]) -> Network:
    """The network as a library for these targets has it."""
    rounded = "sum" if all(target.has_fma for target in targets) else "product"

    def of(step: Step) -> Step:
        if not isinstance(step.op, MatMul | RealConv2d):
            return step
        return replace(step, op=replace(step.op, rounded=rounded))

    return replace(network, steps=tuple(map(of, network.steps)))
