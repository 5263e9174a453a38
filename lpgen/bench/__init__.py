"""Measuring libraries: times, and what this machine could do at most in the same moment."""

from lpgen.lazily import lazily

_PUBLIC = {
    "ComputeProbe": "probes",
    "Measurement": "measure",
    "ReadProbe": "probes",
    "bench": "measure",
    "measured_peak": "measure",
    "pinned": "measure",
}
"""Name -> the module that has it."""

__all__ = list(_PUBLIC)
__getattr__, __dir__ = lazily(__name__, _PUBLIC)
