"""The telescoped algorithm on AVX-512VNNI, see `lpgen.schedules.x86.telescoped`."""

from lpgen.schedules.x86 import telescoped
from lpgen.schedules.x86.isa import AVX512VNNI
from lpgen.schedules.x86.template import template

applies, space, work, kernel = template(telescoped, AVX512VNNI)
