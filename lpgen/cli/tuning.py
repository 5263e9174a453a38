"""Tuning as commands do it: with progress on stderr, an interruption that says how to go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lpgen.ops import Operator
    from lpgen.records import Log
    from lpgen.target import Target
    from lpgen.tune import TuneEvent, TuneResult


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


def rate(results: list[TuneResult], seconds: float) -> str:
    """How many candidates were measured in the seconds of a run, in which several operators may
    have been under way at once, and how many failed."""
    trials = sum(result.trials - result.resumed for result in results)
    a_minute = f": {trials / seconds * 60:.0f} a minute" if trials and seconds else ""
    failed = sum(sum(result.failed.values()) for result in results)
    return f"{trials} candidates in {seconds:.0f} s{a_minute}; {failed} failed"
