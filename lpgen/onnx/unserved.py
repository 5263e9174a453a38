"""Nodes of a model that no operator computes."""

from collections.abc import Sequence
from typing import NamedTuple

from lpgen.errors import OnnxError


class Unserved(NamedTuple):
    """A node that no operator computes, and why."""

    operator: str
    node: str
    reason: str


class UnservedNodes(OnnxError):
    """A model with nodes that no operator computes: `nodes` lists them."""

    def __init__(self, nodes: Sequence[Unserved]) -> None:
        first = nodes[0]
        more = f" (and {len(nodes) - 1} more: lpgen import)" if len(nodes) > 1 else ""
        super().__init__(f"{first.operator} {first.node} is not served: {first.reason}{more}")
        self.nodes = tuple(nodes)
