"""Convolutions of many small groups on AVX2, see `lpgen.schedules.x86.grouped`."""

from lpgen.schedules.x86 import grouped
from lpgen.schedules.x86.isa import AVX2
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(grouped, AVX2)
