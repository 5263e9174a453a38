"""The depthwise algorithm on AVX-512BW, see `lpgen.schedules.x86.depthwise`."""

from lpgen.schedules.x86.depthwise import depthwise_template
from lpgen.schedules.x86.isa import AVX512BW

applies, space, work, kernel = depthwise_template(AVX512BW)
