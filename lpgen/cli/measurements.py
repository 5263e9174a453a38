"""Kernels that are measured: built, of which sizes, and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lpgen.cli import options, output
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.bench import Measurement
    from lpgen.ops import Operator


def build_for(
    operators: Mapping[Operator, str],
    target: str,
    log_path: Path | None,
    threads: int,
    library: Path,
) -> None:
    """Build kernels for a target as `lpgen build` would."""
    from lpgen.build import build
    from lpgen.records.choose import choose
    from lpgen.target import Target

    chosen = Target.parse(target)
    logs = options.logs_to_read(log_path, chosen)
    build([choose(op, chosen, logs, threads=threads) for op in operators], library)


def counts_of(rows: str | None, workloads: Iterable[str]) -> tuple[int, ...]:
    """The numbers of rows that --rows names."""
    from lpgen.ops import parse

    if rows is None:
        return ()
    if all(parse(workload).range is None for workload in workloads):
        raise UserError("--rows is for kernels with a range of rows, such as m=1..512")
    if not all(count.isascii() and count.isdigit() for count in rows.split(",")):
        raise UserError(f"--rows {rows[:40]} is no list of numbers, such as 1,7,64")
    return tuple(dict.fromkeys(map(int, rows.split(","))))


def of_sizes(labels: Mapping[str, str], counts: tuple[int, ...]) -> dict[str, str]:
    """Label by workload; with a range of rows there is one for each of some numbers of them."""
    from lpgen.bench.measure import sizes
    from lpgen.ops import parse

    found = {}
    for workload, label in labels.items():
        op = parse(workload)
        for size in sizes(op, counts):
            shown = label or op.label
            found[size.name] = shown if op.range is None else size.label
    return found


def _used(m: Measurement) -> str:
    """How many layers the calls used, behind a label."""
    return f", {m.layers} used" if m.layers else ""


def print_measurements(
    measurements: Iterable[Measurement],
    labels: Mapping[str, str] | None = None,
) -> None:
    """A table of them; labels: workload -> what to show."""
    from lpgen.ops import parse

    rows = []
    for m in measurements:
        roof = m.instruction if m.bound == "compute" else f"{m.level} read"
        rows.append(
            (
                ((labels or {}).get(m.workload) or parse(m.workload).label) + _used(m),
                m.template,
                m.origin,
                f"{output.microseconds(m.us_best * 1e-6)}{' cold' if m.cold else ''}",
                output.microseconds(m.us_median * 1e-6),
                f"{m.gops:.0f}",
                m.peak_gops and f"{m.peak_gops:.0f}",
                f"{m.bytes / m.us_best * 1e-3:.1f}",
                f"{m.bandwidth_gbs:.1f}",
                f"{output.percent(m.fraction)} of {roof}",
                output.knobs_text(m.knobs),
            )
        )
    names = ("kernel", "template", "knobs of", ">us best", ">median", ">GOP/s", ">peak")
    output.print_table((*names, ">GB/s", ">read", "reached"), rows, wide="knobs")
