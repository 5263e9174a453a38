"""The telescoped algorithm on AVX2, see `lpgen.schedules.x86.telescoped`."""

from lpgen.schedules.x86 import telescoped
from lpgen.schedules.x86.isa import AVX2
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(telescoped, AVX2)
