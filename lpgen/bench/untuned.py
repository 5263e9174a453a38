"""How fast kernels are that nobody has tuned, beside those that were: in turns, in one process."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from lpgen import runtime
from lpgen.bench.laps import ROUNDS, calls, packed_weights
from lpgen.bench.measure import pinned
from lpgen.build import Choice, build, scratch_folder
from lpgen.ops import Operator, parse
from lpgen.records import Log
from lpgen.records.choose import choose
from lpgen.target import Target, detect
from lpgen.tune.timing import compare_laps, time_in_turns

MODEL, LENT, TUNED = "model", "lent", "tuned"
KINDS = (MODEL, LENT, TUNED)


@dataclass(frozen=True)
class Entry:
    """One kernel: where its knobs come from, what they are, and microseconds of a call."""

    origin: str
    template: str
    knobs: dict[str, Any]
    us: float


@dataclass(frozen=True)
class Untuned:
    """The kernels of an operator by kind: what the cost model chooses without any record, what is
    chosen with those of lesser targets alone, and the target's own record, absent if there is none.
    """

    workload: str
    target: str
    entries: dict[str, Entry]

    def share(self, kind: str) -> float | None:
        """The speed of a kind as a part of the tuned one's; None where one of them is absent."""
        if not {kind, TUNED} <= set(self.entries):
            return None
        return self.entries[TUNED].us / self.entries[kind].us

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        shares = {kind: self.share(kind) for kind in (MODEL, LENT)}
        return asdict(self) | {"shares": shares}


def choices(op: Operator, target: Target, logs: Iterable[Log]) -> dict[str, Choice]:
    """The choices of an operator by kind."""
    logs = list(logs)
    found = {
        MODEL: choose(op, target, logs, lenders=()),
        LENT: choose(op, target, logs, lenders=target.lenders()),
        TUNED: choose(op, target, logs, lenders=(target,)),
    }
    return {k: c for k, c in found.items() if k != TUNED or c.origin != "model"}


def compare(ops: Iterable[Operator], target: Target, logs: Iterable[Log]) -> Iterator[Untuned]:
    """Choose, build and time every operator, each as soon as it is done, on one thread.

    The times of an operator are medians of ratios over rounds in which all kinds took their turn
    (`lpgen.tune.timing.compare_laps`); equal choices are one kernel. Kernels of few rows whose
    weights exceed the L2 cache are timed cold, as `bench` does. Raises LibraryError where this CPU
    cannot run the target's code.
    """
    logs = list(logs)
    with scratch_folder() as folder, pinned(1):
        for number, op in enumerate(ops):
            found = choices(op, target, logs)
            distinct: dict[tuple, Choice] = {}
            for choice in found.values():
                distinct.setdefault(_key(choice), choice)
            paths = [
                build([choice], folder / f"{number}-{i}.so")
                for i, choice in enumerate(distinct.values())
            ]
            seconds = dict(zip(distinct, _seconds(op, paths), strict=True))
            entries = {
                kind: Entry(c.origin, c.template, dict(c.knobs), seconds[_key(c)] * 1e6)
                for kind, c in found.items()
            }
            yield Untuned(op.name, target.name, entries)


def _key(choice: Choice) -> tuple:
    return choice.template, *choice.knobs.items()


def _seconds(op: Operator, paths: Iterable[Path]) -> list[float]:
    runs = []
    for path in paths:
        kernel = runtime.load(path)[op.name]
        weights = packed_weights(kernel, op, detect())
        runs.append(calls(kernel, parse(op.name), weights, itertools.cycle(range(len(weights))), 1))
    laps = time_in_turns(runs, ROUNDS, on_round=lambda: None)
    return [timing.seconds for timing in compare_laps(laps)]


def summary(results: Iterable[Untuned]) -> dict[str, tuple[int, float, float]]:
    """(operators, geometric mean, lowest) of the shares of each kind that has any."""
    results = list(results)
    found = {}
    for kind in (MODEL, LENT):
        shares = [share for r in results if (share := r.share(kind)) is not None]
        if shares:
            found[kind] = len(shares), geometric_mean(shares), min(shares)
    return found
