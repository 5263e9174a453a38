"""`lpgen tune`: search the ways to run operators on this CPU, measure them, keep the best."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lpgen.cli import offline as modelling
from lpgen.cli import options, output, tuning, workloads
from lpgen.cli.tune_report import Report
from lpgen.errors import TuneError, UserError

if TYPE_CHECKING:
    from lpgen.tune import TuneResult


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
    failure, began = None, time.monotonic()
    try:
        with farm as settings["farm"]:
            tuning.run(labels, chosen, log, settings, results.append)
    except TuneError as error:
        failure = error  # the operators that are done are reported first
    seconds = time.monotonic() - began
    if results:
        report = Report(results, labels, chosen, log, settings, seconds)
        report.show(as_json)
        output.note(f"records: {log.path}")
        if strategy == "exhaustive":
            report.show_search()
        if separately:
            report.show_separately()
        if judging:
            named = {result.op: labels[result.op] for result in results}
            modelling.judge(named, chosen, log, settings["trials"], as_json)
    if failure:
        raise failure


def _check_trials(trials: int) -> None:
    if trials < 1:
        raise UserError(f"trials={trials} is outside 1..")
