"""The lut_weight algorithm on SSE4.1, see `lpgen.schedules.x86.lut_weight`."""

from lpgen.schedules.x86 import lut_weight
from lpgen.schedules.x86.isa import SSE4
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(lut_weight, SSE4)
