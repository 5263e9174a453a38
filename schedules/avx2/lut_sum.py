"""The lut_sum algorithm on AVX2, see `lpgen.schedules.x86.lut_sum_space`."""

from lpgen.schedules.x86 import lut_sum
from lpgen.schedules.x86.isa import AVX2
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(lut_sum, AVX2)
