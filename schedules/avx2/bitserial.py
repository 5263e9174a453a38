"""The bitserial algorithm on AVX2, see `lpgen.schedules.x86.bitserial_space`."""

from lpgen.schedules.x86.bitserial_template import bitserial_template
from lpgen.schedules.x86.isa import AVX2

applies, space, work, kernel = bitserial_template(AVX2)
