"""Pictures that grow while something runs: a search, the devices of a farm."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from IPython.display import display
from matplotlib.figure import Figure

from lpgen.notebook.pictures import picture
from lpgen.tune import (
    CandidateMeasured,
    OperatorFailed,
    OperatorFinished,
    OperatorStarted,
    RaceStarted,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lpgen.farm import Farm
    from lpgen.tune import TuneEvent


class _LivePicture:
    """A picture in the output of a cell, drawn anew every `every` seconds.

    figure: the matplotlib Figure.
    """

    def __init__(self, every: float = 0.5) -> None:
        self._every = every

    def _begin(self, height: float) -> None:
        """A picture of its own, so many inches high."""
        self.figure = Figure(figsize=(7.5, height), layout="constrained")
        self._handle, self._drawn = None, -math.inf

    @property
    def _due(self) -> bool:
        return time.monotonic() - self._drawn > self._every

    def _axes(self) -> Axes:
        """Empty axes to draw on."""
        self.figure.clear()
        return self.figure.add_subplot()

    def _show(self) -> None:
        """Put what was drawn in the place of what was shown."""
        shown = picture(self.figure)
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)
        self._drawn = time.monotonic()


class TuningPlot(_LivePicture):
    """A picture of a search that grows while it runs: `tune(..., on_event=TuningPlot().take)`.

    Every candidate is a dot, in GOP/s, coloured by its template; a line joins the fastest so far.
    `figure` is the matplotlib Figure, drawn anew every `every` seconds; with several operators each
    gets a picture of its own.
    """

    def take(self, event: TuneEvent) -> None:
        """One event of the run."""
        if isinstance(event, OperatorStarted):
            self._start(event)
        elif isinstance(event, CandidateMeasured):
            self._measured.append(event)
            if self._due:
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
        self._begin(height=4.2)
        self._draw("starting")

    def _draw(self, title: str) -> None:
        axes = self._axes()
        axes.set(xlabel="candidate", ylabel="speed [GOP/s]", title=title)
        axes.set_xlim(0, self._trials + 1)
        self._draw_candidates(axes)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        self.figure.legend(loc="outside lower center", ncols=4)
        self._show()

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


class FarmPlot(_LivePicture):
    """A picture of a farm's devices that grows while they measure: `on_event=FarmPlot(farm).take`.

    A bar for each device: how many candidates it measured, what it is, and how it does. `figure` is
    the matplotlib Figure, drawn anew every `every` seconds.
    """

    def __init__(self, farm: Farm, every: float = 0.5) -> None:
        super().__init__(every)
        self._farm = farm
        self._begin(height=0.9 + 0.4 * len(farm.devices))

    def take(self, event: TuneEvent) -> None:
        """One event of the run."""
        if isinstance(event, OperatorFinished) or self._due:
            self._draw()

    def _draw(self) -> None:
        axes = self._axes()
        devices = self._farm.devices
        names = [f"{n}: {d.device.name if d.device else '-'}" for n, d in enumerate(devices, 1)]
        bars = axes.barh(names, [device.measured for device in devices])
        axes.bar_label(bars, [device.state for device in devices], padding=4)
        axes.margins(x=0.25)
        axes.invert_yaxis()
        axes.set(xlabel="candidates measured", title=f"devices of key {self._farm.key}")
        self._show()
