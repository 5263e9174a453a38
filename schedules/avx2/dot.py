"""The dot algorithm on AVX2, see `lpgen.schedules.x86.dot_space`."""

from lpgen.schedules.x86.dot_template import dot_template
from lpgen.schedules.x86.isa import AVX2

applies, space, work, kernel = dot_template(AVX2)
