"""Whole networks: steps on tensors, each of which an operator computes, in one library."""

from lpgen.lazily import lazily

_PUBLIC = {
    "Network": "network",
    "Step": "network",
    "TensorType": "network",
    "build": "library",
    "build_nodes": "library",
    "build_plans": "library",
    "default_name": "library",
    "rounded_for": "rounding",
}
"""Name -> the module that has it."""

__all__ = list(_PUBLIC)
__getattr__, __dir__ = lazily(__name__, _PUBLIC)
