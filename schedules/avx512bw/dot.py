"""The dot algorithm on AVX-512BW, see `lpgen.schedules.x86.dot_space`."""

from lpgen.schedules.x86.dot_template import dot_template
from lpgen.schedules.x86.isa import AVX512BW

applies, space, work, kernel = dot_template(AVX512BW)
