"""Operators without weights on CPUs of no family with vectors of its own: LLVM's, of 128 bits."""

from lpgen.schedules.common import rows
from lpgen.schedules.generic.portable import given_portable

SERVES = rows.SERVES

why_not, space, work, kernel = given_portable(rows)
