"""What `lpgen tune` prints of its results, and what it measures besides to judge the search."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

from lpgen.cli import output, tuning
from lpgen.errors import TuneError

if TYPE_CHECKING:
    from lpgen.ops import Operator
    from lpgen.records import Log, Record
    from lpgen.target import Target
    from lpgen.tune import TuneResult

_RACING = 3
"""Winners of templates tuned alone that race with the one of the shared trials."""


@dataclass(frozen=True)
class Report:
    """Results of one run of `lpgen tune`.

    labels: how operators are called; settings: the named arguments of `lpgen.tune.tune`; seconds:
    how long the run took.
    """

    results: list[TuneResult]
    labels: dict[Operator, str]
    target: Target
    log: Log
    settings: dict[str, Any]
    seconds: float

    def show(self, as_json: bool) -> None:
        """Print what tuning gave, and how fast it went."""
        rows = []
        for result in self.results:
            best, peak = result.best, _peak(result, self.target)
            gops = result.op.ops_timed / best.seconds * 1e-9
            if as_json:
                output.print_json(_describe(result, gops, peak))
            rows.append(
                (
                    self.labels[result.op],
                    best.template,
                    output.microseconds(best.seconds),
                    f"{gops:.0f}",
                    output.percent(peak and gops / peak),
                    output.microseconds(result.default_seconds),
                    result.gain and f"{result.gain:.2f}x",
                    output.lead(best),
                    output.knobs_text(best.knobs),
                )
            )
        names = ("layer", "template", ">us", ">GOP/s", ">of peak", ">default us", ">gain")
        if not as_json:
            output.print_table((*names, "ahead of"), rows, wide="knobs")
        output.note(tuning.rate(self.results, self.seconds))

    def show_search(self) -> None:
        """Say what the search would have found of spaces that were measured whole."""
        from lpgen.tune import compare_search

        trials = self.settings["trials"]
        for result in self.results:
            among = self.settings["templates"]
            strategies = (
                ("model", "equal", "random") if len(result.templates) > 1 else ("model", "random")
            )
            options = {"trials": (trials,), "among": among, "strategies": strategies}
            found = compare_search(result.op, self.target, self.log, **options)
            reached = ", ".join(
                f"{p.strategy} {p.median:.1%} (worst seed {p.worst:.1%})" for p in found
            )
            output.note(
                f"{self.labels[result.op]}: best of {output.count(result.trials, 'candidate')}; of "
                f"its speed, {output.count(trials, 'trial')} reach: {reached}"
            )

    def show_separately(self) -> None:
        """Tune every template that competed alone, with as many trials each, into a log of its own;
        race the fastest of the winners with that of the shared trials, and say what share of its
        speed this one reaches."""
        from lpgen.tune import race_records

        alone = self._tuned_alone()
        racing = {r.op: [r.best, *alone[r.op][:_RACING]] for r in self.results}
        same_way = {name: self.settings[name] for name in ("seed", "timeout", "threads")}
        seconds = race_records(racing, self.target, **same_way)
        shares = []
        for op, (shared, *others) in seconds.items():
            fastest = min(others)
            best = racing[op][1 + others.index(fastest)]
            # The same kernel is as fast, whatever the race says.
            same = (best.template, best.knobs) == (racing[op][0].template, racing[op][0].knobs)
            shares.append(1.0 if same else fastest / shared)
            templates = output.count(len(alone[op]), "template")
            output.note(
                f"{self.labels[op]}: {shares[-1]:.1%} of the best of {templates} tuned alone: "
                f"{racing[op][0].template} {output.microseconds(shared)} us, "
                f"{best.template} {output.microseconds(fastest)} us"
            )
        output.note(
            f"{self.settings['trials']} trials for all templates or for each of them: geometric "
            f"mean {geometric_mean(shares):.1%}, worst {min(shares):.1%}"
        )

    def _tuned_alone(self) -> dict[Operator, list[Record]]:
        """For each operator the winners of its templates tuned alone, fastest first."""
        from lpgen.records import Log

        log = Log(_beside(self.log.path, "alone"))
        found: dict[Operator, list[Record]] = {result.op: [] for result in self.results}
        for name in dict.fromkeys(name for r in self.results for name in r.templates):
            served = {r.op: self.labels[r.op] for r in self.results if name in r.templates}

            def take(result: TuneResult) -> None:
                found[result.op].append(result.best)

            # A template that fails everywhere is out of the race and nothing more.
            with contextlib.suppress(TuneError):
                tuning.run(served, self.target, log, self.settings | {"templates": [name]}, take)
        return {op: sorted(best, key=lambda record: record.seconds) for op, best in found.items()}


def _beside(path: Path, word: str) -> Path:
    """log.jsonl -> log.WORD.jsonl"""
    return path.with_name(f"{path.stem}.{word}{path.suffix}")


def _describe(result: TuneResult, gops: float, peak: float | None) -> dict[str, Any]:
    best = result.best
    return {
        "workload": result.op.name,
        "target": best.target,
        "template": best.template,
        "knobs": best.knobs,
        "us": best.seconds * 1e6,
        "threads": best.threads,
        "gops": gops,
        "peak_gops": peak,
        "default_us": result.default_seconds and result.default_seconds * 1e6,
        "gain": result.gain,
        "runner_up": best.runner_up and asdict(best.runner_up),
        "lead": best.lead,
        "trials": result.trials,
        "resumed": result.resumed,
        "foreseen": result.foreseen and asdict(result.foreseen),
        "failed": dict(result.failed),
        "elapsed": result.elapsed,
    }


def _peak(result: TuneResult, target: Target) -> float | None:
    """GOP/s of the loop on registers that bounds the winner, on as many threads, measured now; None
    where another machine measured the winner."""
    from lpgen.bench import measured_peak

    best = result.best
    if not best.measured_here:
        return None
    peak = measured_peak(best.template, best.knobs, target, best.threads)
    return peak and peak * 1e-9
