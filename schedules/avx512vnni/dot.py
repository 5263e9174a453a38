"""The dot algorithm on AVX-512VNNI."""

from lpgen.algorithms.kernel import Kernel
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.x86 import dot, dot_space
from lpgen.schedules.x86.isa import AVX512VNNI
from lpgen.space import Knobs, Space
from lpgen.target import Target


def applies(op: Dense | Conv2d, target: Target) -> str | None:
    """Why the template does not serve `op`; None if it does."""
    return dot_space.unfit(op)


def space(op: Dense | Conv2d, target: Target) -> Space:
    """The knobs, see `lpgen.schedules.x86.dot_space`."""
    return dot_space.space(op, AVX512VNNI)


def default(op: Dense | Conv2d, target: Target) -> Knobs:
    """Knobs for an operator that nobody has tuned."""
    return dot_space.default(op, AVX512VNNI)


def kernel(op: Dense | Conv2d, target: Target, knobs: Knobs) -> Kernel:
    """The scheduled kernel. Raises ScheduleRefused for knobs outside of the space."""
    return dot.kernel(op, AVX512VNNI, knobs)
