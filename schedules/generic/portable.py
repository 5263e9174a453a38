"""The Isa of CPUs of no family with vectors of its own: LLVM's, of 128 bits."""

from lpgen.isa import Isa


class Portable(Isa):
    """Nothing but the fallbacks of every operation."""

    level = "generic"
    bits, registers = 128, 16
    tables = ()
