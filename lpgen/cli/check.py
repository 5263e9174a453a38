"""`lpgen check`: are the kernels of a library exact?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import networks, options, output
from lpgen.cli.compile import read
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.target import Target

WRONG = 1


@click.command()
@click.argument("library", type=click.Path(path_type=Path), metavar="LIB.so")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="MODEL.onnx",
    help="What a network was compiled of: its steps are compared with the oracle's.",
)
@click.option(
    "--target",
    metavar="NAME",
    help="The CPU that an emulator (qemu-user) runs the kernels on [this one; of a library for "
    "another architecture what it was built for].",
)
@options.shapes
@options.dynamic
@options.plan
@options.seed
@options.as_json
def command(
    library: Path,
    model: Path | None,
    target: str | None,
    shapes: dict[str, tuple[int, ...]],
    dynamic: str,
    plan: Path | None,
    seed: int,
    as_json: bool,
) -> int:
    """Compare every kernel of a library with the NumPy oracle, in a fresh process.

    Of a network each step is then compared with what its kernel makes of the same tensors, with the
    weights that the library holds, and whole calls with the steps one by one; with --model the
    steps are compared with the oracle of the model's, too, and the first that differs is named.

    Kernels for another CPU are run by an emulator of it: an instruction that it lacks is a failure.

    Exits with status 1 when a result differs in any bit.
    """
    from lpgen import runtime
    from lpgen.build.check import emulated_target

    elsewhere = emulated_target(library, target)
    if elsewhere is not None:
        if model is not None:
            raise UserError(f"--model is for a library that this CPU runs, not {elsewhere.name}")
        return WRONG if run(library, seed, as_json, elsewhere) else 0
    has_network = runtime.load(library).network is not None
    if model is None and (shapes or dynamic or plan):
        raise UserError("--shape, --dynamic and --plan are for --model MODEL.onnx")
    if model is not None and not has_network:
        raise UserError(f"{library}: holds no network, and --model is for one")
    network = read(model, shapes, dynamic, plan) if model else None
    wrong = run(library, seed, as_json)
    if has_network:
        wrong += networks.check(library, network, seed, as_json)
    return WRONG if wrong else 0


def run(library: Path, seed: int, as_json: bool, target: Target | None = None) -> int:
    """Check and print; the number of kernels that are wrong. target: of an emulator."""
    from dataclasses import asdict

    from lpgen.build.check import check_library

    wrong, count = 0, 0
    for result in check_library(library, seed, target):
        wrong += result.failure is not None
        count += 1
        if as_json:
            output.print_json(asdict(result) | {"exact": result.failure is None})
        else:
            verdict = f"exact, {result.calls} calls"
            click.echo(f"{result.workload}: {result.failure or verdict}")
    if not as_json:
        click.echo(f"{count - wrong} of {count} kernels are exact")
    return wrong
