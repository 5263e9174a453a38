"""The lane_pack algorithm on AVX2, see `lpgen.schedules.x86.lane_pack`."""

from lpgen.schedules.x86 import lane_pack
from lpgen.schedules.x86.isa import AVX2
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(lane_pack, AVX2)
