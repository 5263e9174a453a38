"""The lut_product algorithm on AVX-512BW, see `lpgen.schedules.x86.lut_product`."""

from lpgen.schedules.x86.isa import AVX512BW
from lpgen.schedules.x86.lut_product import template

applies, space, work, kernel = template(AVX512BW)
