"""Operators without weights on CPUs of no family with vectors of its own: LLVM's, of 128 bits."""

from lpgen.algorithms.kernel import Kernel
from lpgen.ops import Operator
from lpgen.schedules.common import rows
from lpgen.schedules.generic.portable import Portable
from lpgen.space import Counts, Knobs, Space
from lpgen.target import Target

SERVES = rows.SERVES


def why_not(op: Operator, target: Target) -> str | None:
    """As the common template."""
    return rows.why_not(op, Portable(target))


def space(op: Operator, target: Target) -> Space:
    """As the common template."""
    return rows.space(op, Portable(target))


def work(op: Operator, target: Target, knobs: Knobs) -> Counts:
    """As the common template."""
    return rows.work(op, Portable(target), knobs)


def kernel(op: Operator, target: Target, knobs: Knobs) -> Kernel:
    """As the common template."""
    return rows.kernel(op, Portable(target), knobs)
