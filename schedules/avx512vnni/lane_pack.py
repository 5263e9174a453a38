"""The lane_pack algorithm on AVX-512VNNI, see `lpgen.schedules.x86.lane_pack`."""

from lpgen.schedules.x86 import lane_pack
from lpgen.schedules.x86.isa import AVX512VNNI
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(lane_pack, AVX512VNNI)
