"""The lut_sum algorithm on AVX-512BW, see `lpgen.schedules.x86.lut_sum_space`."""

from lpgen.schedules.x86 import lut_sum
from lpgen.schedules.x86.isa import AVX512BW
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(lut_sum, AVX512BW)
