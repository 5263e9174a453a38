"""The lane_pack algorithm on AVX-512BW, see `lpgen.schedules.x86.lane_pack`."""

from lpgen.schedules.x86 import lane_pack
from lpgen.schedules.x86.isa import AVX512BW
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(lane_pack, AVX512BW)
