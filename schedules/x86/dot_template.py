"""The dot algorithm as a template of one instruction set: the content of `<family>/dot.py`."""

from collections.abc import Callable
from typing import NamedTuple

from lpgen.algorithms.kernel import Kernel
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.x86 import dot, dot_space
from lpgen.schedules.x86.isa import Isa
from lpgen.space import Counts, Knobs, Space
from lpgen.target import Target


class DotTemplate(NamedTuple):
    """The four functions of a template, see `lpgen.templates`."""

    applies: Callable[[Dense | Conv2d, Target], str | None]
    space: Callable[[Dense | Conv2d, Target], Space]
    work: Callable[[Dense | Conv2d, Target, Knobs], Counts]
    kernel: Callable[[Dense | Conv2d, Target, Knobs], Kernel]


def dot_template(isa: Isa) -> DotTemplate:
    """The template on `isa`; the target makes no difference beyond its instructions."""
    return DotTemplate(
        applies=lambda op, target: dot_space.unfit(op),
        space=lambda op, target: dot_space.space(op, isa),
        work=lambda op, target, knobs: dot_space.work(op, isa, knobs, target),
        kernel=lambda op, target, knobs: dot.kernel(op, isa, knobs),
    )
