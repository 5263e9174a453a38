"""Products with scales of groups of k on SSE4.1, see `lpgen.schedules.x86.group_dot`."""

from lpgen.schedules.x86 import group_dot
from lpgen.schedules.x86.isa import SSE4
from lpgen.schedules.x86.template import template

group_scales = True
applies, space, work, kernel = template(group_dot, SSE4)
