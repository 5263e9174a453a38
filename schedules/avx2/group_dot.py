"""Products with scales of groups of k on AVX2, see `lpgen.schedules.x86.group_dot`."""

from lpgen.schedules.x86 import group_dot
from lpgen.schedules.x86.isa import AVX2
from lpgen.schedules.x86.template import template

group_scales = True
applies, space, work, kernel = template(group_dot, AVX2)
