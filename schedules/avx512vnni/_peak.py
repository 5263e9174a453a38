"""The compute peak of AVX-512VNNI."""

from lpgen.algorithms.peak import Peak
from lpgen.schedules.x86.isa import AVX512VNNI
from lpgen.schedules.x86.peak import peak as x86_peak
from lpgen.space import Knobs


def peak(knobs: Knobs) -> Peak:
    """The loop that bounds a kernel of this family with these knobs."""
    return x86_peak(AVX512VNNI, knobs)
