"""Whole networks: steps on tensors, each of which an operator computes, in one library."""

from lpgen.network.library import build, build_nodes, default_name
from lpgen.network.network import Network, Step, TensorType

__all__ = ["Network", "Step", "TensorType", "build", "build_nodes", "default_name"]
