"""The bitserial algorithm on AVX-512BW, see `lpgen.schedules.x86.bitserial_space`."""

from lpgen.schedules.x86.bitserial_template import bitserial_template
from lpgen.schedules.x86.isa import AVX512BW

applies, space, work, kernel = bitserial_template(AVX512BW)
