"""`lpgen tune`: search the ways to run operators on this CPU, measure them, keep the best."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

import click

from lpgen.cli import offline as modelling
from lpgen.cli import options, output, workloads
from lpgen.errors import TuneError, UserError

if TYPE_CHECKING:
    from lpgen.ops import Operator
    from lpgen.records import Log, Record
    from lpgen.target import Target
    from lpgen.tune import TuneEvent, TuneResult


_RACING = 3
"""Winners of templates tuned alone that race with the one of the shared trials."""


@click.command()
@workloads.operators()
@options.target
@click.option("--trials", default=64, show_default=True, help="Candidates for each operator.")
@options.log("Where records are kept, and read to go on [the user's log of the target].")
@options.seed
@click.option("--timeout", default=10.0, show_default=True, help="Seconds to build, and to time.")
@click.option("--jobs", type=int, help="Processes that build; one times at a time [cores].")
@click.option("--threads", default=1, show_default=True, help="Threads of each timed call.")
@click.option("--template", "templates", multiple=True, metavar="NAME", help="Only this template.")
@click.option("--exhaustive", "strategy", flag_value="exhaustive", help="Measure whole spaces.")
@click.option(
    "--separately",
    is_flag=True,
    help="Tune each template alone too, and say how near sharing the trials came.",
)
@click.option("--random", "strategy", flag_value="random", help="Draw candidates at random.")
@click.option(
    "--offline",
    is_flag=True,
    help="Rank candidates for --target by llvm-mca; nothing is measured.",
)
@click.option(
    "--judge-model",
    "judging",
    is_flag=True,
    help="Say how well that ranks what was measured, of --trials candidates a template.",
)
@options.devices
@options.as_json
def command(
    asked: workloads.Asked,
    target: str,
    log_path: Path | None,
    strategy: str | None,
    separately: bool,
    templates: tuple[str, ...],
    as_json: bool,
    jobs: int | None,
    rpc: str | None,
    key: str | None,
    devices: int | None,
    offline: bool,
    judging: bool,
    **settings: Any,
) -> None:
    """Tune operators for this machine's CPU, or with --rpc for that of other machines.

    Every measured candidate is logged at once. Tuning the same operators with the same log again
    goes on where it stopped. With several --threads as many cores time and only the others build;
    the records are for that number, and serve others where there is none of theirs.

    With --rpc and --key candidates are built here, for --target, and measured on the devices that
    were started with this key (`lpgen rpc-server`), several at once. A device that is lost costs a
    candidate at most.

    With --offline the CPU need not be at hand: a static model (llvm-mca on the hot loop, the bytes
    of the tiling) ranks --trials candidates. Their records say cycles, not times: any measured one
    comes before them, and tuning begins with the best of them.
    """
    from lpgen.target import Target
    from lpgen.tune import most_jobs

    farm = options.farm(rpc, key, devices)
    labels = asked.operators()
    chosen = Target.parse(target)
    log = options.log_to_write(log_path, chosen)
    if offline:
        if strategy or separately or rpc or judging:
            raise UserError("--offline goes with operators, --target, --trials, --template, --log")
        _check_trials(settings["trials"])
        modelling.rank(labels, chosen, log, settings["trials"], templates, as_json)
        return
    settings |= {"strategy": strategy or "model", "templates": templates or None}
    settings["jobs"] = jobs if jobs is not None else most_jobs(settings["threads"])
    results: list[TuneResult] = []
    failure = None
    try:
        with farm as settings["farm"]:
            run(labels, chosen, log, settings, results.append)
    except TuneError as error:
        failure = error  # the operators that are done are reported first
    if results:
        report(results, labels, chosen, as_json)
        output.note(f"records: {log.path}")
        if strategy == "exhaustive":
            report_search(results, labels, chosen, log, settings)
        if separately:
            report_separately(results, labels, chosen, log, settings)
        if judging:
            named = {result.op: labels[result.op] for result in results}
            modelling.judge(named, chosen, log, settings["trials"], as_json)
    if failure:
        raise failure


def _check_trials(trials: int) -> None:
    if trials < 1:
        raise UserError(f"trials={trials} is outside 1..")


def run(
    labels: dict[Operator, str],
    target: Target,
    log: Log,
    settings: dict[str, Any],
    finished: Callable[[TuneResult], None],
) -> None:
    """Tune with progress on stderr, giving the result of each operator to `finished`.

    settings: the named arguments of `lpgen.tune.tune`.

    Raises TuneError when an operator failed, after the others are done, and Interrupted, which says
    how to go on, on Ctrl-C.
    """
    from lpgen.cli.app import interruptible
    from lpgen.cli.progress import progress
    from lpgen.tune import OperatorFinished, tune

    message = (
        f"interrupted; what was measured is in {log.path}: the same command goes on from there"
    )
    trials = settings["trials"]
    if isinstance(trials, dict):
        trials = -(-sum(trials.values()) // len(trials))  # on average
    with interruptible(message), progress(labels, trials) as show:

        def take(event: TuneEvent) -> None:
            if isinstance(event, OperatorFinished):
                finished(event.result)
            show(event)

        tune(list(labels), target, log=log, on_event=take, **settings)


def report(
    results: list[TuneResult], labels: dict[Operator, str], target: Target, as_json: bool
) -> None:
    """Print what tuning gave, and how fast it went."""
    rows = []
    for result in results:
        best, peak = result.best, _peak(result, target)
        gops = result.op.ops_timed / best.seconds * 1e-9
        if as_json:
            output.print_json(_describe(result, gops, peak))
        rows.append(
            (
                labels[result.op],
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
    names = ("layer", "template", ">us", ">GOP/s", ">of peak", ">default us", ">gain", "ahead of")
    if not as_json:
        output.print_table(names, rows, wide="knobs")
    output.note(rate(results))


def report_search(
    results: list[TuneResult],
    labels: dict[Operator, str],
    target: Target,
    log: Log,
    settings: dict[str, Any],
) -> None:
    """Say what the search would have found of spaces that were measured whole."""
    from lpgen.tune import compare_search

    trials = settings["trials"]
    for result in results:
        among = settings["templates"]
        strategies = (
            ("model", "equal", "random") if len(result.templates) > 1 else ("model", "random")
        )
        options = {"trials": (trials,), "among": among, "strategies": strategies}
        found = compare_search(result.op, target, log, **options)
        reached = ", ".join(
            f"{p.strategy} {p.median:.1%} (worst seed {p.worst:.1%})" for p in found
        )
        output.note(
            f"{labels[result.op]}: best of {output.count(result.trials, 'candidate')}; of its "
            f"speed, {output.count(trials, 'trial')} reach: {reached}"
        )


def report_separately(
    results: list[TuneResult],
    labels: dict[Operator, str],
    target: Target,
    log: Log,
    settings: dict[str, Any],
) -> None:
    """Tune every template that competed alone, with as many trials each, into a log of its own;
    race the fastest of the winners with that of the shared trials, and say what share of its speed
    this one reaches."""
    from lpgen.records import Log
    from lpgen.tune import race_records

    alone = _tune_alone(results, labels, target, Log(_beside(log.path, "alone")), settings)
    racing = {result.op: [result.best, *alone[result.op][:_RACING]] for result in results}
    same_way = {name: settings[name] for name in ("seed", "timeout", "threads")}
    seconds = race_records(racing, target, **same_way)
    shares = []
    for op, (shared, *others) in seconds.items():
        fastest = min(others)
        best = racing[op][1 + others.index(fastest)]
        # The same kernel is as fast, whatever the race says.
        same = (best.template, best.knobs) == (racing[op][0].template, racing[op][0].knobs)
        shares.append(1.0 if same else fastest / shared)
        templates = output.count(len(alone[op]), "template")
        output.note(
            f"{labels[op]}: {shares[-1]:.1%} of the best of {templates} tuned alone: "
            f"{racing[op][0].template} {output.microseconds(shared)} us, "
            f"{best.template} {output.microseconds(fastest)} us"
        )
    output.note(
        f"{settings['trials']} trials for all templates or for each of them: geometric mean "
        f"{geometric_mean(shares):.1%}, worst {min(shares):.1%}"
    )


def _tune_alone(
    results: list[TuneResult],
    labels: dict[Operator, str],
    target: Target,
    log: Log,
    settings: dict[str, Any],
) -> dict[Operator, list[Record]]:
    """For each operator the winners of its templates tuned alone, fastest first."""
    found: dict[Operator, list[Record]] = {result.op: [] for result in results}
    for name in dict.fromkeys(name for result in results for name in result.templates):
        served = {result.op: labels[result.op] for result in results if name in result.templates}

        def take(result: TuneResult) -> None:
            found[result.op].append(result.best)

        # A template that fails everywhere is out of the race and nothing more.
        with contextlib.suppress(TuneError):
            run(served, target, log, settings | {"templates": [name]}, take)
    return {op: sorted(best, key=lambda record: record.seconds) for op, best in found.items()}


def _beside(path: Path, word: str) -> Path:
    """log.jsonl -> log.WORD.jsonl"""
    return path.with_name(f"{path.stem}.{word}{path.suffix}")


def rate(results: list[TuneResult]) -> str:
    """How many candidates were measured, how fast, and how many failed."""
    trials = sum(result.trials - result.resumed for result in results)
    seconds = sum(result.elapsed for result in results)
    a_minute = f": {trials / seconds * 60:.0f} a minute" if trials and seconds else ""
    failed = sum(sum(result.failed.values()) for result in results)
    return f"{trials} candidates in {seconds:.0f} s{a_minute}; {failed} failed"


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
