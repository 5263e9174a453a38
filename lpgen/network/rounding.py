"""How a network adds products of float32: with one rounding where all its CPUs can.

An instruction that multiplies and adds takes as long as one that does either. It rounds once, so
that results depend on whether it is used: by a library for all its targets, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lpgen.network.network import Network, Step
from lpgen.ops.rounded import Rounded
from lpgen.target import Target


def rounded_for(network: Network, targets: Sequence[Target]) -> Network:
    """The network as a library for these targets has it."""
    rounded = "sum" if all(target.has_fma for target in targets) else "product"

    def of(step: Step) -> Step:
        if not isinstance(step.op, Rounded):
            return step
        return replace(step, op=replace(step.op, rounded=rounded))

    return replace(network, steps=tuple(map(of, network.steps)))
