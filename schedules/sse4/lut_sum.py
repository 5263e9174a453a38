"""The lut_sum algorithm on SSE4.1, see `lpgen.schedules.x86.lut_sum_space`."""

from lpgen.schedules.x86 import lut_sum
from lpgen.schedules.x86.isa import SSE4
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(lut_sum, SSE4)
