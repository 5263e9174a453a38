"""Pictures: how many times faster than the best other library each operator is, and plain times."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpgen.bench.comparison import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT_OF_BAR = 0.34
_HEIGHT_OF_REST = 1.7
_WIDTH = 8.0
_RESOLUTION = 130


def draw(report: Report, path: Path, title: str) -> None:
    """Draw a bar for each row: the time of the fastest rival over ours, coloured by the rival.

    Needs matplotlib: raises ImportError without, OSError when `path` cannot be written.
    """
    from matplotlib.figure import Figure

    rows = [(label, c) for label, c in report.rows if c.ratio is not None]
    height = _HEIGHT_OF_REST + _HEIGHT_OF_BAR * len(rows)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    peers = sorted({c.best().peer for _, c in rows})
    for number, peer in enumerate(peers):
        places = [i for i, (_, c) in enumerate(rows) if c.best().peer == peer]
        ratios = [rows[i][1].ratio for i in places]
        bars = axes.barh(places, ratios, color=f"C{number}", label=f"fastest is {peer}")
        axes.bar_label(bars, [f" {ratio:.2f}" for ratio in ratios], fontsize=8)
    _label(axes, report, [label for label, _ in rows], title)
    if peers:
        figure.legend(loc="outside lower center", ncols=len(peers), fontsize=8)
    figure.savefig(path, dpi=_RESOLUTION)


def draw_times(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw a bar for each row: microseconds of a call (`us_best`), coloured by who takes them
    (`by`, and the `threads`), in groups by `what`.

    Needs matplotlib: raises ImportError without, OSError when `path` cannot be written.
    """
    from matplotlib.figure import Figure

    height = _HEIGHT_OF_REST + _HEIGHT_OF_BAR * len(rows)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    kinds = list(dict.fromkeys(f"{row['by']}, threads: {row['threads']}" for row in rows))
    for number, kind in enumerate(kinds):
        own = [i for i, row in enumerate(rows) if f"{row['by']}, threads: {row['threads']}" == kind]
        times = [float(rows[i]["us_best"]) for i in own]
        bars = axes.barh(own, times, color=f"C{number % 10}", label=kind)
        axes.bar_label(bars, [f" {us:.4g}" for us in times], fontsize=8)
    axes.set_yticks(range(len(rows)), [row["what"] for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.02)
    axes.set_xlabel("microseconds of a call, at best")
    axes.set_title(title, size=9)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=_RESOLUTION)


def _label(axes: "Axes", report: Report, labels: list[str], title: str) -> None:
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="0.3", linewidth=1)
    axes.margins(x=0.12, y=0.02)
    ours = sorted({c.ours.out for _, c in report.rows})
    theirs = sorted({c.best().out for _, c in report.rows if c.best()})
    outputs = f"lpgen writes {', '.join(ours)}, the others {', '.join(theirs) or 'nothing'}"
    axes.set_xlabel(f"time of the fastest other library / time of lpgen\n{outputs}")
    mean = f", geometric mean {report.mean:.2f}" if report.mean else ""
    threads = f"{report.threads} thread{'s' * (report.threads > 1)}"
    axes.set_title(
        f"{title}{mean}\n{report.cpu}, {report.target}, {threads}, {report.date}", size=9
    )
    axes.grid(axis="x", alpha=0.3)
