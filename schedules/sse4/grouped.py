"""Convolutions of many small groups on SSE4.1, see `lpgen.schedules.x86.grouped`."""

from lpgen.schedules.x86 import grouped
from lpgen.schedules.x86.isa import SSE4
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(grouped, SSE4)
