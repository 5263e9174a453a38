"""The telescoped algorithm on SSE4, see `lpgen.schedules.x86.telescoped`."""

from lpgen.schedules.x86 import telescoped
from lpgen.schedules.x86.isa import SSE4
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(telescoped, SSE4)
