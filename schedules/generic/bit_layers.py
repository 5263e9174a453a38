"""Bit layers on CPUs of no family with vectors of its own: LLVM's, of 128 bits."""

from lpgen.algorithms.kernel import Kernel
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common import bit_layers
from lpgen.schedules.generic.portable import Portable
from lpgen.space import Counts, Knobs, Space
from lpgen.target import Target

RANGED = True
SERVES = bit_layers.SERVES


def why_not(op: Dense | Conv2d, target: Target) -> str | None:
    """As the common template."""
    return bit_layers.why_not(op, Portable(target))


def space(op: Dense, target: Target) -> Space:
    """As the common template."""
    return bit_layers.space(op, Portable(target))


def work(op: Dense, target: Target, knobs: Knobs) -> Counts:
    """As the common template."""
    return bit_layers.work(op, Portable(target), knobs)


def kernel(op: Dense, target: Target, knobs: Knobs) -> Kernel:
    """As the common template."""
    return bit_layers.kernel(op, Portable(target), knobs)
