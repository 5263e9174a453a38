"""Measuring libraries: times, and what this machine could do at most in the same moment."""

from lpgen.bench.measure import Measurement, bench, measured_peak, pinned
from lpgen.bench.probes import ComputeProbe, ReadProbe

__all__ = [
    "ComputeProbe",
    "Measurement",
    "ReadProbe",
    "bench",
    "measured_peak",
    "pinned",
]
