"""`lpgen bench`: how fast the kernels of a library are, beside what this machine can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import options, output
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.bench import Measurement

MAX_THREADS = 1024


@click.command()
@click.argument("library", type=click.Path(path_type=Path), metavar="LIB.so")
@click.option("--threads", default=1, show_default=True, help="Threads of each call.")
@options.as_json
def command(library: Path, threads: int, as_json: bool) -> None:
    """Time every kernel of a library, in turns with what bounds it.

    The bound is the compute peak (a loop of the best instruction on registers) or the bandwidth of
    the memory in which the kernel's data lie, whichever takes longer. Kernels for few rows whose
    weights exceed the L2 cache are timed cold: with other weights at each call.
    """
    from lpgen import runtime

    if not 1 <= threads <= MAX_THREADS:
        raise UserError(f"--threads {threads} is outside 1..{MAX_THREADS}")
    loaded = runtime.load(library)
    from lpgen.bench import bench

    measurements = bench(loaded, threads=threads)
    if as_json:
        for measurement in measurements:
            output.print_json(measurement.describe())
        return
    print_measurements(measurements)


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
                (labels or {}).get(m.workload) or output.label(parse(m.workload)),
                m.template,
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
    names = ("kernel", "template", ">us best", ">median", ">GOP/s", ">peak")
    output.print_table((*names, ">GB/s", ">read", "reached"), rows, wide="knobs")
