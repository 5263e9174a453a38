"""What the commands say of a library that holds a network."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpgen.cli import output

if TYPE_CHECKING:
    from lpgen.runtime import Library, Network, Step


def show(path: Path, as_json: bool) -> None:
    """Print the steps of a network, its memory, and where its kernels' knobs come from."""
    from lpgen.runtime import Library

    library = Library(path)
    if as_json:
        for value in _json(library):
            output.print_json(value)
        return
    network = library.network
    rows = [_row(i, step, library) for i, step in enumerate(network.steps)]
    output.print_table((">step", "name", "kernel", "template", "knobs of", "writes", "at"), rows)
    for line in lines(library, path.stat().st_size):
        output.note(f"{path}: {line}")


def lines(library: Library, nbytes: int) -> Iterable[str]:
    """What a network takes and gives, its steps and kernels, and its memory."""
    network, size = library.network, output.file_size
    arena, constants = network.interface["arena"], network.interface["constant_bytes"]
    yield f"takes {_tensors(network.inputs)}, gives {_tensors(network.outputs)}"
    kernels = output.count(len(library.workloads), "kernel")
    targets = dict.fromkeys(v["target"] for v in _variants(library).values())
    yield (
        f"{output.count(len(network.steps), 'step')} on {kernels} for {', '.join(targets)}; "
        f"{size(constants)} of constants, {size(nbytes)} in all"
    )
    bound = arena["lower_bound"]
    over = f"{arena['tensor_bytes'] / bound:.2f} of " if bound else ""
    yield (
        f"arena {size(arena['tensor_bytes'])}: {over}the {size(bound)} that are needed at once, "
        f"{size(arena['sum_bytes'])} are the sum of its tensors; with the workspace of one thread "
        f"{size(network.arena_bytes())}"
    )
    origins: dict[str, int] = {}
    for variant in _variants(library).values():
        origins[variant["origin"]] = origins.get(variant["origin"], 0) + 1
    yield f"knobs: {', '.join(f'{n} {name}' for name, n in origins.items())}"


def _json(library: Library) -> Iterable[dict[str, Any]]:
    """One object for each step, and one for the network."""
    network, variants = library.network, _variants(library)
    for step in network.steps:
        variant = variants[step.workload]
        chosen = {key: variant[key] for key in ("target", "template", "knobs", "origin")}
        yield {
            "step": step.name,
            "workload": step.workload,
            "inputs": step.inputs,
            "output": step.output,
            "sources": step.sources,
            **chosen,
        }
    summary = {k: v for k, v in network.interface.items() if k != "steps"}
    yield {"network": summary | {"arena_bytes": network.arena_bytes()}}


def _row(number: int, step: Step, library: Library) -> tuple:
    from lpgen.ops import parse

    variant, tensor = _variants(library)[step.workload], library.network.tensors[step.output]
    written = f"{tensor.dtype}{list(tensor.shape)}"
    label, place = parse(step.workload).label, f"{tensor.where} {tensor.at}"
    return (number, step.name, label, variant["template"], variant["origin"], written, place)


def _variants(library: Library) -> dict[str, dict[str, Any]]:
    """The only variant of each kernel of a network's library."""
    return {entry["workload"]: entry["variants"][0] for entry in library.manifest["kernels"]}


def _tensors(tensors: Any) -> str:
    return ", ".join(map(str, tensors.values()))


def check(path: Path, network: Network | None, seed: int, as_json: bool) -> int:
    """Check the steps and print; the number of those that are wrong."""
    from dataclasses import asdict

    import click

    from lpgen.network.check import check_network

    wrong, count = [], 0
    for result in check_network(path, seed, network):
        count += 1
        wrong += [result] if result.failure else []
        if as_json:
            output.print_json(asdict(result) | {"exact": result.failure is None})
        elif result.failure:
            click.echo(f"step {result.step} ({result.workload}): {result.failure}")
    if not as_json:
        of = "the oracle and their kernels alone" if network else "their kernels alone"
        click.echo(f"{count - len(wrong)} of {output.count(count, 'step')} are as {of}")
        if wrong:
            click.echo(f"the first that differs is step {wrong[0].step}")
    return len(wrong)
