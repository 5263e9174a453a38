"""Pictures and short texts for notebooks; needs the extra `lpgen[notebooks]`.

`brief` shows a schedule, `TuningPlot` a search while it runs, `FarmPlot` the devices of a farm,
`measure_roofs` and `roofline` how near kernels come to what the machine could do (Williams,
Waterman, Patterson: Roofline: an insightful visual performance model for multicore architectures,
2009); `bit_map` shows which algorithm wins at which bit widths.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
from IPython.display import Image, display
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from lpgen.bench import ComputeProbe, ReadProbe, pinned
from lpgen.runtime.memory import aligned
from lpgen.templates import peak_of, templates_for
from lpgen.tune import (
    CandidateMeasured,
    OperatorFailed,
    OperatorFinished,
    OperatorStarted,
    RaceStarted,
)
from lpgen.tune.timing import time_in_turns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lpgen.farm import Farm
    from lpgen.ops import Operator
    from lpgen.target import Target
    from lpgen.tune import TuneEvent

_LEFT_OUT = re.compile(r"# |T\.(reads|writes|func_attr)\(|[\w, ]+ = T\.axis\.")
_INTRINSIC = re.compile(r'T\.call_llvm_(?:pure_)?intrin\("[^"]*", "llvm\.x86\.([^"]*)"(?:, )?')
_ROUNDS = 5
_LARGEST = 1 << 30
_MEMORY_SHARE = 4


def brief(module: Any, width: int = 100) -> str:
    """The TVMScript of an IRModule or PrimFunc, to be read for its loops and stages.

    Left out: comments, attributes, what blocks read and write, and how their axes follow from the
    loops. Instructions are called by their names. Lines are cut off at `width` columns.
    `module.script()` is the whole text.
    """
    lines = []
    for line in module.script().splitlines():
        text = line.lstrip()
        if text and not _LEFT_OUT.match(text):
            line = " " * ((len(line) - len(text)) // 2) + _INTRINSIC.sub(r"\1(", text)
            lines.append(line if len(line) <= width else f"{line[: width - 1]}…")
    return "\n".join(lines)


def picture(figure: Figure) -> Image:
    """The figure as a PNG, for the end of a cell."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130)
    return Image(data.getvalue(), width=int(figure.get_figwidth() * 100))


class TuningPlot:
    """A picture of a search that grows while it runs: `tune(..., on_event=TuningPlot().take)`.

    Every candidate is a dot, in GOP/s, coloured by its template; a line joins the fastest so far.
    `figure` is the matplotlib Figure, drawn anew every `every` seconds; with several operators each
    gets a picture of its own.
    """

    def __init__(self, every: float = 0.5) -> None:
        self._every = every

    def take(self, event: TuneEvent) -> None:
        """One event of the run."""
        if isinstance(event, OperatorStarted):
            self._start(event)
        elif isinstance(event, CandidateMeasured):
            self._measured.append(event)
            if time.monotonic() - self._drawn > self._every:
                self._draw(f"{event.done} of {event.trials} candidates")
        elif isinstance(event, RaceStarted):
            self._draw(f"racing {event.candidates} leaders")
        elif isinstance(event, OperatorFinished):
            best = event.result.best
            speed = event.op.ops / best.seconds * 1e-9
            self._draw(f"winner {best.template}: {best.seconds * 1e6:.0f} µs, {speed:.0f} GOP/s")
        elif isinstance(event, OperatorFailed):
            self._draw("all candidates failed")

    def _start(self, event: OperatorStarted) -> None:
        self._measured: list[CandidateMeasured] = []
        self._trials, self._templates = event.trials, event.templates
        self.figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        self._handle = None
        self._draw("starting")

    def _draw(self, title: str) -> None:
        self.figure.clear()
        axes = self.figure.add_subplot()
        axes.set(xlabel="candidate", ylabel="speed [GOP/s]", title=title)
        axes.set_xlim(0, self._trials + 1)
        self._draw_candidates(axes)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        self.figure.legend(loc="outside lower center", ncols=4)
        shown = picture(self.figure)
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)
        self._drawn = time.monotonic()

    def _draw_candidates(self, axes: Axes) -> None:
        def speed(event: CandidateMeasured, seconds: float | None) -> float:
            return event.op.ops / seconds * 1e-9 if seconds else 0.0

        axes.step(
            [event.done for event in self._measured],
            [speed(event, event.fastest) for event in self._measured],
            where="post",
            color="0.5",
            label="fastest so far",
        )
        for number, template in enumerate(self._templates):
            mine = [event for event in self._measured if event.template == template]
            for marker, failed in (("o", False), ("x", True)):
                chosen = [event for event in mine if (event.seconds is None) == failed]
                if chosen or not failed:
                    axes.scatter(
                        [event.done for event in chosen],
                        [speed(event, event.seconds) for event in chosen],
                        marker=marker,
                        color=f"C{number}",
                        label=f"{template}, failed" if failed else template,
                        zorder=2,
                    )


class FarmPlot:
    """A picture of a farm's devices that grows while they measure: `on_event=FarmPlot(farm).take`.

    A bar for each device: how many candidates it measured, what it is, and how it does. `figure` is
    the matplotlib Figure, drawn anew every `every` seconds.
    """

    def __init__(self, farm: Farm, every: float = 0.5) -> None:
        self._farm, self._every = farm, every
        self._handle, self._drawn = None, -math.inf
        self.figure = Figure(figsize=(7.5, 0.9 + 0.4 * len(farm.devices)), layout="constrained")

    def take(self, event: TuneEvent) -> None:
        """One event of the run."""
        last = isinstance(event, OperatorFinished)
        if last or time.monotonic() - self._drawn > self._every:
            self._draw()

    def _draw(self) -> None:
        self.figure.clear()
        axes = self.figure.add_subplot()
        devices = self._farm.devices
        names = [f"{n}: {d.device.name if d.device else '-'}" for n, d in enumerate(devices, 1)]
        bars = axes.barh(names, [device.measured for device in devices])
        axes.bar_label(bars, [device.state for device in devices], padding=4)
        axes.margins(x=0.25)
        axes.invert_yaxis()
        axes.set(xlabel="candidates measured", title=f"devices of key {self._farm.key}")
        shown = picture(self.figure)
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)
        self._drawn = time.monotonic()


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


def bit_map(title: str, cells: Mapping[tuple[int, int], tuple[str, str]]) -> Figure:
    """A map of pairs of bit widths, coloured by what is best there.

    cells: (weight bits, activation bits) -> (name of the best, text to show).
    """
    weights = sorted({weight for weight, _ in cells})
    acts = sorted({act for _, act in cells})
    names = sorted({name for name, _ in cells.values()})
    figure = Figure(
        figsize=(1.6 + 0.85 * len(acts), 1.6 + 0.55 * len(weights)), layout="constrained"
    )
    axes = figure.add_subplot()
    for (weight, act), (name, text) in cells.items():
        x, y = acts.index(act), weights.index(weight)
        color = f"C{names.index(name)}"
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=color, alpha=0.45, lw=0))
        axes.text(x, y, text, ha="center", va="center", fontsize=8)
    axes.set(xlim=(-0.5, len(acts) - 0.5), ylim=(len(weights) - 0.5, -0.5), title=title)
    axes.set(xlabel="activation bits", ylabel="weight bits")
    axes.set_xticks(range(len(acts)), acts)
    axes.set_yticks(range(len(weights)), weights)
    handles = [Patch(color=f"C{i}", alpha=0.45, label=name) for i, name in enumerate(names)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure
