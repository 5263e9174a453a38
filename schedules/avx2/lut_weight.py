"""The lut_weight algorithm on AVX2, see `lpgen.schedules.x86.lut_weight`."""

from lpgen.schedules.x86 import lut_weight
from lpgen.schedules.x86.isa import AVX2
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(lut_weight, AVX2)
