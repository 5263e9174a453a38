"""Whole networks: steps on tensors, each of which an operator computes, in one library."""

from lpgen.network.library import build, default_name
from lpgen.network.network import Network, Step, TensorType

__all__ = ["Network", "Step", "TensorType", "build", "default_name"]
