"""The lane_pack algorithm on SSE4, see `lpgen.schedules.x86.lane_pack`."""

from lpgen.schedules.x86 import lane_pack
from lpgen.schedules.x86.isa import SSE4
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(lane_pack, SSE4)
