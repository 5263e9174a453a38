"""The bitserial algorithm as a template of one instruction set: `<family>/bitserial.py`."""

from lpgen.algorithms.bitserial import unfit
from lpgen.schedules.x86 import bitserial, bitserial_space
from lpgen.schedules.x86.isa import Isa
from lpgen.schedules.x86.template import Functions


def bitserial_template(isa: Isa) -> Functions:
    """The template on `isa`; whether there is an instruction for counting says the target."""
    return Functions(
        applies=lambda op, target: unfit(op),
        space=lambda op, target: bitserial_space.space(op, isa, target),
        work=lambda op, target, knobs: bitserial_space.work(op, isa, target, knobs),
        kernel=lambda op, target, knobs: bitserial.kernel(op, isa, target, knobs),
    )
