"""An algorithm as a template of one instruction set: the content of `<family>/<algorithm>.py`."""

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

from lpgen.algorithms.kernel import Kernel
from lpgen.ops import Conv2d, Dense
from lpgen.schedules.x86.isa import Isa, with_extensions
from lpgen.space import Counts, Knobs, Space
from lpgen.target import Target


class Functions(NamedTuple):
    """The four functions of a template, see `lpgen.templates`."""

    applies: Callable[[Dense | Conv2d, Target], str | None]
    space: Callable[[Dense | Conv2d, Target], Space]
    work: Callable[[Dense | Conv2d, Target, Knobs], Counts]
    kernel: Callable[[Dense | Conv2d, Target, Knobs], Kernel]


def template(algorithm: ModuleType, isa: Isa) -> Functions:
    """The template of `algorithm` (unfit, space, work and kernel, of an operator and an Isa)
    on `isa`; the target makes no difference beyond its instructions."""

    def on(target: Target) -> Isa:
        return with_extensions(isa, target)

    return Functions(
        applies=lambda op, target: algorithm.unfit(op, on(target)),
        space=lambda op, target: algorithm.space(op, on(target)),
        work=lambda op, target, knobs: algorithm.work(op, on(target), knobs, target),
        kernel=lambda op, target, knobs: algorithm.kernel(op, on(target), knobs),
    )
