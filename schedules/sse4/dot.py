"""The dot algorithm on SSE4.1, see `lpgen.schedules.x86.dot_space`."""

from lpgen.schedules.x86.dot_template import dot_template
from lpgen.schedules.x86.isa import SSE4

applies, space, work, kernel = dot_template(SSE4)
