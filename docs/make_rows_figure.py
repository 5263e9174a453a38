"""The figure of docs/rows.md: python docs/make_rows_figure.py WORKLOAD LOG...

Times of a kernel with a range of rows beside those of kernels for one number of rows each, in
turns, one thread: docs/figures/rows.png. Kernels are chosen as `lpgen build` does, with the logs.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from lpgen import runtime
from lpgen.bench.laps import calls
from lpgen.bench.measure import pinned
from lpgen.build import build
from lpgen.ops import Operator, parse
from lpgen.records import this_cpu
from lpgen.records.choose import choose
from lpgen.tune.timing import time_in_turns

SIZES = (*range(1, 34), 48, 64, 128, 256, 512)
ROUNDS = 10


def fixed(ranged: Operator) -> list[Operator]:
    """The operators of one number of rows each."""
    return [ranged.at(m) for m in SIZES if ranged.range.low <= m <= ranged.range.high]


def library(workload: str, logs: list[str], out: Path) -> Path:
    """The library with all kernels."""
    ranged = parse(workload)
    return build([choose(op, "native", logs) for op in (ranged, *fixed(ranged))], out)


def measured(workload: str, path: Path) -> list[tuple[int, float, float]]:
    """(rows, seconds of the kernel for so many, seconds of the kernel for any) for each size."""
    ranged, loaded, found = parse(workload), runtime.load(path), []
    example = fixed(ranged)[0].example(np.random.default_rng(0))
    any_rows = loaded[ranged.name]
    packed = any_rows.pack_weights(example.weights, **example.parameters)
    with pinned(1):
        for op in fixed(ranged):
            kernel = loaded[op.name]
            own = kernel.pack_weights(example.weights, **example.parameters)
            runs = [calls(k, op, [w], iter(()), 1) for k, w in ((kernel, own), (any_rows, packed))]
            laps = time_in_turns(runs, ROUNDS, on_round=lambda: None)
            found.append((op.m, *map(min, laps)))
            print(*found[-1], f"{found[-1][2] / found[-1][1]:.3f}", flush=True)
    return found


def draw(found: list[tuple[int, float, float]], workload: str) -> None:
    """Save the figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows, one, every = map(np.array, zip(*found, strict=True))
    figure, (times, ratio) = pyplot.subplots(
        2, 1, figsize=(8, 6), sharex=True, height_ratios=(2, 1)
    )
    times.plot(rows, one * 1e6, "o-", label="a kernel for this number of rows", markersize=4)
    times.plot(rows, every * 1e6, "x-", label="the kernel for any number", markersize=5)
    times.set(xscale="log", yscale="log", ylabel="microseconds", title=workload)
    times.legend()
    ratio.plot(rows, every / one, "x-", color="C1", markersize=5)
    ratio.axhline(1.0, color="gray", linewidth=0.8)
    ratio.set(ylabel="ratio", xlabel="rows", ylim=(0.6, 1.4))
    ticks = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    ratio.set_xticks(ticks, [str(tick) for tick in ticks])
    figure.suptitle(f"{this_cpu()}, one thread", fontsize=8)
    figure.tight_layout()
    figure.savefig(Path(__file__).parent / "figures" / "rows.png", dpi=80)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = library(sys.argv[1], sys.argv[2:], Path(folder) / "rows.so")
        draw(measured(sys.argv[1], made), sys.argv[1])
