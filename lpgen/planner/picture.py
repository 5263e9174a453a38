"""Picture of a front: what plans lose over what they take."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from lpgen.planner.planning import Point


def draw(
    front: Sequence[Point],
    uniform: Mapping[str, Point],
    chosen: Point,
    measured: tuple[float, float] | None,
    path: str | os.PathLike[str],
) -> None:
    """Draw the front, uniform plans, and the chosen one as expected and, (seconds, loss), as it was
    measured. Needs matplotlib: raises ImportError without, OSError where `path` cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    least = min((p.loss for p in front if p.loss > 0), default=1e-9) / 2

    def place(points: Sequence[Point]) -> tuple[list[float], list[float]]:
        return [p.seconds * 1e3 for p in points], [max(p.loss, least) for p in points]

    axes.plot(*place(front), "o-", markersize=3, label="front")
    axes.plot(*place(list(uniform.values())), "s", label="uniform")
    for name, point in uniform.items():
        (x,), (y,) = place([point])
        axes.annotate(f" {name}", (x, y), fontsize=7)
    axes.plot(*place([chosen]), "D", label="chosen, expected")
    if measured:
        axes.plot([measured[0] * 1e3], [max(measured[1], least)], "*", label="chosen, measured")
    axes.set_yscale("log")
    axes.set_xlabel("ms of a call")
    axes.set_ylabel("divergence of the outputs")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
