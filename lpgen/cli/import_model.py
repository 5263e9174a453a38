"""`lpgen import`: what a model consists of, before anything is compiled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import options, output

if TYPE_CHECKING:
    from lpgen.network import Network
    from lpgen.onnx.unserved import Unserved


@click.command("import")
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL.onnx")
@options.shapes
@options.dynamic
@options.plan
@options.as_json
def command(
    model: Path,
    shapes: dict[str, tuple[int, ...]],
    dynamic: str,
    plan: Path | None,
    as_json: bool,
) -> None:
    """List the operators of a model of ONNX, as workloads, with how often each is there.

    Operators with weights come first. What lpgen has no operator for is listed with the reason, and
    the exit status is 2 then. Needs `pip install 'lpgen[onnx]'`.
    """
    from lpgen.cli.compile import read
    from lpgen.onnx import UnservedNodes

    try:
        network = read(model, shapes, dynamic, plan)
    except UnservedNodes as error:
        _show_unserved(error.nodes, as_json)
        raise
    rows = _rows(network)
    if as_json:
        for count, kind, workload, first in rows:
            output.print_json({"count": count, "kind": kind, "workload": workload, "step": first})
        return
    for what, tensors in (("input", network.inputs), ("output", network.outputs)):
        for name, kind in tensors.items():
            click.echo(f"{what} {name}: {kind}")
    output.print_table((">times", "workload", "first step"), [(r[0], r[2], r[3]) for r in rows])


def _rows(network: Network) -> list[tuple[int, str, str, str]]:
    """(how often, kind, workload, name of the first step): those with weights first."""
    counts = Counter(step.op.name for step in network.steps)
    first = {step.op.name: step for step in reversed(network.steps)}
    order = sorted(counts, key=lambda name: first[name].weights is None)
    return [(counts[n], first[n].op.kind, n, first[n].name) for n in order]


def _show_unserved(nodes: Sequence[Unserved], as_json: bool) -> None:
    if as_json:
        for node in nodes:
            output.print_json({"unserved": node.operator, "node": node.node, "reason": node.reason})
        return
    counts = Counter((node.operator, node.reason) for node in nodes)
    first = {(node.operator, node.reason): node.node for node in reversed(nodes)}
    rows = [(count, op, reason, first[op, reason]) for (op, reason), count in counts.most_common()]
    output.print_table((">times", "not served", "reason", "first node"), rows)
