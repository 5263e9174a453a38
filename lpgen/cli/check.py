"""`lpgen check`: are the kernels of a library exact?"""

from __future__ import annotations

from pathlib import Path

import click

from lpgen.cli import options, output

WRONG = 1


@click.command()
@click.argument("library", type=click.Path(path_type=Path), metavar="LIB.so")
@options.seed
@options.as_json
def command(library: Path, seed: int, as_json: bool) -> int:
    """Compare every kernel of a library with the NumPy oracle, in a fresh process.

    Exits with status 1 when a result differs in any bit.
    """
    return WRONG if run(library, seed, as_json) else 0


def run(library: Path, seed: int, as_json: bool) -> int:
    """Check and print; the number of kernels that are wrong."""
    from dataclasses import asdict

    from lpgen.build.check import check_library

    wrong, count = 0, 0
    for result in check_library(library, seed):
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
