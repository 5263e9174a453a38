"""Products with scales of groups of k on AVX-512BW, see `lpgen.schedules.x86.group_dot`."""

from lpgen.schedules.x86 import group_dot
from lpgen.schedules.x86.isa import AVX512BW
from lpgen.schedules.x86.template import template

group_scales = True
applies, space, work, kernel = template(group_dot, AVX512BW)
