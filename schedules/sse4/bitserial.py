"""The bitserial algorithm on SSE4.1, see `lpgen.schedules.x86.bitserial_space`."""

from lpgen.schedules.x86.bitserial_template import bitserial_template
from lpgen.schedules.x86.isa import SSE4

applies, space, work, kernel = bitserial_template(SSE4)
