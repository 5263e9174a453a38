"""`lpgen bench --untuned`: what kernels lose that nobody has tuned for this CPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

from lpgen.cli import output

if TYPE_CHECKING:
    from lpgen.bench.untuned import Untuned
    from lpgen.ops import Operator
    from lpgen.records import Log
    from lpgen.target import Target


def run(operators: Mapping[Operator, str], target: Target, logs: Iterable[Log], as_json: bool):
    """Compare and print, one operator after the other, then the geometric means."""
    from lpgen.bench.untuned import compare

    results = []
    for number, result in enumerate(compare(operators, target, logs), 1):
        results.append(result)
        label = list(operators.values())[number - 1]
        if as_json:
            output.print_json({"label": label, **result.describe()})
        else:
            output.note(f"[{number}/{len(operators)}] {label}: {_shares(result)}")
    if not as_json:
        _print(results, list(operators.values()))


def _shares(result: Untuned) -> str:
    from lpgen.bench.untuned import LENT, MODEL

    shares = {kind: result.share(kind) for kind in (MODEL, LENT)}
    said = [f"{kind} {share:.2f}" for kind, share in shares.items() if share]
    return ", ".join(said) or "no record"


def _print(results: list[Untuned], labels: list[str]) -> None:
    from lpgen.bench.untuned import KINDS, LENT, MODEL, TUNED, summary

    rows = []
    for result, label in zip(results, labels, strict=True):
        found = [result.entries.get(kind) for kind in KINDS]
        times = [entry and output.microseconds(entry.us * 1e-6) for entry in found]
        shares = [s and f"{s:.2f}" for s in (result.share(MODEL), result.share(LENT))]
        lent, tuned = result.entries.get(LENT), result.entries.get(TUNED)
        origins = (lent and lent.origin, tuned and tuned.template)
        rows.append((label, found[0].template, *times, *shares, *origins))
    names = ("operator", "model's template", ">model us", ">lent us", ">tuned us")
    output.print_table((*names, ">model", ">lent", "lent by", "tuned template"), rows)
    for kind, (count, mean, lowest) in summary(results).items():
        means = f"geometric mean {mean:.3f}, lowest {lowest:.3f}"
        click.echo(f"{kind} / tuned speed: {means}, {output.count(count, 'operator')}")
