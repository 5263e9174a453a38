"""The lut_product algorithm on SSE4.1, see `lpgen.schedules.x86.lut_product`."""

from lpgen.schedules.x86.isa import SSE4
from lpgen.schedules.x86.lut_product import template

applies, space, work, kernel = template(SSE4)
