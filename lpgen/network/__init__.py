"""Whole networks: steps on tensors, each of which an operator computes."""

from lpgen.network.network import Network, Step, TensorType

__all__ = ["Network", "Step", "TensorType"]
