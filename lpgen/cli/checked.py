"""What `lpgen check` says of kernels, here or on a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from lpgen.cli import output

if TYPE_CHECKING:
    from lpgen.build.check import Checked


def served(lacking: Mapping[str, Sequence[str]], cpu: str) -> list[str | None]:
    """The targets for which a CPU lacks nothing, None: the only one; of the others it says what."""
    if len(lacking) == 1:
        return [None]
    for name, features in lacking.items():
        if features:
            output.note(f"not checked: {name}: {cpu} lacks {', '.join(features)}")
    return [name for name, features in lacking.items() if not features]


def print_kernels(
    results: Iterable[Checked],
    as_json: bool,
    asked: str | None = None,
    more: Mapping[str, Any] = {},
) -> int:
    """Print each result as soon as it is there; the number of kernels that are wrong. asked: of
    several targets the one whose kernels are checked; more: what else JSON says."""
    from dataclasses import asdict

    wrong, count, front = 0, 0, f"{asked}: " if asked else ""
    for result in results:
        wrong += result.failure is not None
        count += 1
        if as_json:
            output.print_json(asdict(result) | {"exact": result.failure is None} | more)
        else:
            verdict = f"exact, {result.calls} calls"
            click.echo(f"{front}{result.workload}: {result.failure or verdict}")
    if not as_json:
        click.echo(f"{front}{count - wrong} of {count} kernels are exact")
    return wrong
