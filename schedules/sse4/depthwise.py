"""The depthwise algorithm on SSE4.1, see `lpgen.schedules.x86.depthwise`."""

from lpgen.schedules.x86.depthwise import depthwise_template
from lpgen.schedules.x86.isa import SSE4

applies, space, work, kernel = depthwise_template(SSE4)
