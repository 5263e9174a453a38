"""The depthwise algorithm on AVX2, see `lpgen.schedules.x86.depthwise`."""

from lpgen.schedules.x86.depthwise import depthwise_template
from lpgen.schedules.x86.isa import AVX2

applies, space, work, kernel = depthwise_template(AVX2)
