"""Figures as pictures in a cell, and the map of bit widths."""

import io
from collections.abc import Mapping

from IPython.display import Image
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle


def picture(figure: Figure) -> Image:
    """The figure as a PNG, for the end of a cell."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130)
    return Image(data.getvalue(), width=int(figure.get_figwidth() * 100))


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
