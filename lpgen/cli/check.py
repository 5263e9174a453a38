"""`lpgen check`: are the kernels of a library exact?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import networks, options, output
from lpgen.cli.compile import read
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.runtime import Library
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
    "another architecture what it was built for]; or one of several that it was built for.",
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
    Of a library for several targets the kernels of all that the CPU runs are checked, and the
    others are named; with LPGEN_TARGET in the environment those of that one.

    Exits with status 1 when a result differs in any bit.
    """
    from lpgen import runtime
    from lpgen.build.check import emulated_target, lacking_on

    elsewhere = emulated_target(library, target)
    if elsewhere is not None:
        if model is not None:
            raise UserError(f"--model is for a library that this CPU runs, not {elsewhere.name}")
        several = _served(lacking_on(library, elsewhere), elsewhere.name)
        return WRONG if sum(run(library, seed, as_json, elsewhere, name) for name in several) else 0
    loaded = runtime.load(library)
    has_network = loaded.network is not None
    if model is None and (shapes or dynamic or plan):
        raise UserError("--shape, --dynamic and --plan are for --model MODEL.onnx")
    if model is not None and not has_network:
        raise UserError(f"{library}: holds no network, and --model is for one")
    network = read(model, shapes, dynamic, plan) if model else None
    several = _in_use(loaded, target)
    wrong = sum(run(library, seed, as_json, None, name) for name in several)
    if has_network:
        wrong += sum(networks.check(library, network, seed, as_json, name) for name in several)
    return WRONG if wrong else 0


def _in_use(library: Library, target: str | None) -> list[str | None]:
    """The targets whose kernels this CPU runs, or the one that is named; None: the only one."""
    if len(library.targets) == 1:
        return [None]
    if target not in (None, "native"):
        return [target]
    return [library.target] if library.asked else _served(library.lacking, "this CPU")


def _served(lacking: Mapping[str, Sequence[str]], cpu: str) -> list[str | None]:
    """The targets for which a CPU lacks nothing, None: the only one; of the others it says what."""
    if len(lacking) == 1:
        return [None]
    for name, features in lacking.items():
        if features:
            output.note(f"not checked: {name}: {cpu} lacks {', '.join(features)}")
    return [name for name, features in lacking.items() if not features]


def run(
    library: Path,
    seed: int,
    as_json: bool,
    target: Target | None = None,
    asked: str | None = None,
) -> int:
    """Check and print; the number of kernels that are wrong. target: of an emulator; asked: of
    several targets the one whose kernels are checked."""
    from dataclasses import asdict

    from lpgen.build.check import check_library

    wrong, count, front = 0, 0, f"{asked}: " if asked else ""
    for result in check_library(library, seed, target, asked):
        wrong += result.failure is not None
        count += 1
        if as_json:
            output.print_json(asdict(result) | {"exact": result.failure is None})
        else:
            verdict = f"exact, {result.calls} calls"
            click.echo(f"{front}{result.workload}: {result.failure or verdict}")
    if not as_json:
        click.echo(f"{front}{count - wrong} of {count} kernels are exact")
    return wrong
