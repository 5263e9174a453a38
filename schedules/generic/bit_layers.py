"""Bit layers on CPUs of no family with vectors of its own: LLVM's, of 128 bits."""

from lpgen.schedules.common import bit_layers
from lpgen.schedules.generic.portable import given_portable

RANGED = True
SERVES = bit_layers.SERVES

why_not, space, work, kernel = given_portable(bit_layers)
