"""What the machine can do at most, and how near kernels come to it (Williams, Waterman, Patterson:
Roofline: an insightful visual performance model for multicore architectures, 2009)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
from matplotlib.figure import Figure

from lpgen.bench import ComputeProbe, ReadProbe, pinned
from lpgen.runtime.memory import aligned
from lpgen.templates import peak_of, templates_for
from lpgen.tune.timing import time_in_turns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lpgen.ops import Operator
    from lpgen.target import Target

_ROUNDS = 5
_LARGEST = 1 << 30
_MEMORY_SHARE = 4


@dataclass(frozen=True)
class Roofs:
    """What one thread can do at most here, measured.

    peaks: GOP/s of a loop on registers, by its instruction; bandwidths: GB/s of reading, by the
    level of the memory that holds the data ("L2", "L3", "DRAM").
    """

    peaks: dict[str, float]
    bandwidths: dict[str, float]


def measure_roofs(op: Operator, target: Target) -> Roofs:
    """The peak of each instruction set that serves `op` on `target`, and all bandwidths.

    The probes take turns for about a second; the best of several rounds counts. `target` has to be
    this machine's.
    """
    compute = {}
    for template in templates_for(op, target):
        if peak := peak_of(template.family, target, template.default(op, target)):
            compute[peak.instruction] = ComputeProbe(peak, target)
    read = {}
    for level, nbytes in _sizes(target).items():
        read[level] = ReadProbe([aligned(nbytes)], itertools.repeat(0), target)
    with pinned(1):
        runs = [probe.run for probe in (*compute.values(), *read.values())]
        best = iter([min(lap) for lap in time_in_turns(runs, _ROUNDS, on_round=lambda: None)])
    return Roofs(
        {name: probe.ops / next(best) * 1e-9 for name, probe in compute.items()},
        {level: probe.nbytes / next(best) * 1e-9 for level, probe in read.items()},
    )


def _sizes(target: Target) -> dict[str, int]:
    """Bytes that lie in each level; DRAM only where they can be too many for the caches.

    Without L1: no operator worth a library fits there with its weights.
    """
    sizes = {"L2": target.l2 // 2}
    # Of a large cache that many cores share, a part may be all that is free.
    if target.l3 > 2 * target.l2:
        sizes["L3"] = min(4 * target.l2, target.l3 // 2)
    caches = max(target.l2, target.l3)
    spare = psutil.virtual_memory().available // _MEMORY_SHARE
    if caches < (large := min(caches * 3 // 2, _LARGEST, spare)):
        sizes["DRAM"] = large
    return sizes


def roofline(roofs: Roofs, kernels: Mapping[str, tuple[float, Sequence[float]]]) -> Figure:
    """Roofs and kernels over operations per byte, both axes logarithmic.

    kernels: label -> (operations per byte of weights, input and output; GOP/s of the kernel, then
    those of other candidates, which are drawn small).
    """
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", ylabel="speed [GOP/s]")
    axes.set_xlabel("intensity [operations per byte of weights, input and output]")
    places = [place for place, _ in kernels.values()]
    left, right = min(places) / 8, max(places) * 10
    axes.set_xlim(left, right)
    fastest = max(max(speeds) for _, speeds in kernels.values())
    _draw_roofs(axes, roofs, left, right, max([fastest, *roofs.peaks.values()]))
    for number, (label, (place, speeds)) in enumerate(kernels.items()):
        kernel, *others = speeds
        axes.plot([place] * len(others), others, ".", color=f"C{number}", alpha=0.4)
        axes.plot(place, kernel, "o", color=f"C{number}", label=f"{label}: {kernel:.0f} GOP/s")
    axes.grid(which="major", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _draw_roofs(axes: Axes, roofs: Roofs, left: float, right: float, top: float) -> None:
    """Bandwidths as slopes up to `top`, peaks as lines from the steepest slope on."""
    for number, (level, bandwidth) in enumerate(roofs.bandwidths.items()):
        axes.plot([left, top / bandwidth], [left * bandwidth, top], color="0.4", lw=1)
        place = left * 1.1 * 2.5**number  # so that the texts of near slopes do not meet
        axes.text(
            place,
            place * bandwidth,
            f"{level} {bandwidth:.0f} GB/s",
            fontsize=8,
            va="bottom",
            # The angle of the slope where both axes are linear, turned into that of the picture.
            rotation=math.degrees(math.atan(bandwidth)),
            rotation_mode="anchor",
            transform_rotates_text=True,
        )
    for name, peak in roofs.peaks.items():
        begin = peak / max(roofs.bandwidths.values())
        axes.plot([begin, right], [peak, peak], color="0.4", lw=1)
        note = f"{name} {peak:.0f} GOP/s "
        axes.text(right, peak, note, fontsize=8, va="bottom", ha="right")
