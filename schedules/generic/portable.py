"""The Isa of CPUs of no family with vectors of its own: LLVM's, of 128 bits."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from lpgen.isa import Isa


class Portable(Isa):
    """Nothing but the fallbacks of every operation."""

    level = "generic"
    bits, registers = 128, 16
    tables = ()


def given_portable(common: ModuleType) -> tuple[Callable[..., Any], ...]:
    """why_not, space, work and kernel of a common template, for the Isa of a target."""

    def given(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda op, target, *knobs: function(op, Portable(target), *knobs)

    return tuple(map(given, (common.why_not, common.space, common.work, common.kernel)))
