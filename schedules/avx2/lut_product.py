"""The lut_product algorithm on AVX2, see `lpgen.schedules.x86.lut_product`."""

from lpgen.schedules.x86.isa import AVX2
from lpgen.schedules.x86.lut_product import template

applies, space, work, kernel = template(AVX2)
