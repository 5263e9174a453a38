"""Convolutions of many small groups on AVX-512VNNI, see `lpgen.schedules.x86.grouped`."""

from lpgen.schedules.x86 import grouped
from lpgen.schedules.x86.isa import AVX512VNNI
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(grouped, AVX512VNNI)
