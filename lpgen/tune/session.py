"""A tuning run over operators."""

import operator
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, Protocol

from lpgen import templates as registry
from lpgen.build.link import linker_of
from lpgen.errors import TuneError
from lpgen.ops import Operator, parse
from lpgen.records import Log
from lpgen.target import Target
from lpgen.templates import Template
from lpgen.tune.built import Machine
from lpgen.tune.cost_model import CostModel, teach
from lpgen.tune.events import TuneEvent, TuneResult
from lpgen.tune.pool import Pool, allowed_cores
from lpgen.tune.run import Run
from lpgen.tune.runner import this_machine
from lpgen.tune.search import STRATEGIES
from lpgen.tune.settings import Settings

MAX_TRIALS = 1_000_000


class Devices(Protocol):
    """Machines that measure what is built here, as `lpgen.farm.Farm` gives them."""

    machine: Machine

    def check(self, target: Target) -> None:
        """Raise TuneError where they cannot run code of the target."""

    def pool(self, jobs: int, timeout: float) -> Pool:
        """Workers that build here and measure there."""


def tune(
    ops: Iterable[Operator | str],
    target: Target | str = "native",
    *,
    trials: int | Mapping[Operator, int] = 64,
    log: Log | str | os.PathLike | None = None,
    seed: int = 0,
    timeout: float = 10.0,
    jobs: int = 1,
    threads: int = 1,
    templates: Iterable[Template | str] | None = None,
    strategy: str = "model",
    on_event: Callable[[TuneEvent], None] | None = None,
    farm: Devices | None = None,
) -> list[TuneResult]:
    """Find fast templates and knobs for operators by measuring on this machine, or on others.

    ops: operators or workload texts; target: must be one that this CPU can run
    trials: candidates measured per operator, or a number for each of them; those that `log` holds
        of the same CPU and versions count, so that a run goes on where another one stopped
    log: every measured candidate and every winner is appended to it at once (None: nowhere)
    timeout: seconds a candidate may take to build, and again to be checked and to be timed
    jobs: processes that build at a time; only one times at once
    threads: on how many each call is timed, bound to as many cores; several leave only the other
        cores to the processes that build
    templates: which compete (default: all that apply); naming one restricts the search to it
    strategy: "model" (cost model and evolution), "random", or "exhaustive" (the whole space,
        whatever `trials` says)
    on_event: called with each TuneEvent
    farm: devices that measure what is built here (an open `lpgen.farm.Farm`), on one thread

    A candidate that crashes, hangs, refuses or computes anything but the oracle's result is a
    failed candidate and nothing more. Raises UserError for arguments out of range, RecordError
    when the log cannot be written and LibraryError without a linker (before anything is measured),
    TuneError when all candidates of an operator failed (after the other operators are done).
    KeyboardInterrupt leaves after all processes are gone; what was measured is in the log.
    """
    jobs = _integer("jobs", jobs, 1, 256)
    seed = _integer("seed", seed, 0, 2**31 - 1)
    if isinstance(timeout, bool) or not isinstance(timeout, Real) or not 0.001 <= timeout <= 3600:
        raise TuneError(f"timeout={timeout} is outside 0.001..3600")
    if strategy not in STRATEGIES:
        raise TuneError(f"strategy={strategy} is unknown; known: {', '.join(STRATEGIES)}")
    if farm is None:
        threads = _threads(threads, jobs)
        machine = this_machine()
        target = _runnable(target, machine)
    else:
        threads = _integer("threads (on devices)", threads, 1, 1)
        machine = farm.machine
        target = target if isinstance(target, Target) else Target.parse(target)
        farm.check(target)
    linker_of(target)
    log = log if isinstance(log, Log) or log is None else Log(log)
    distinct = list(dict.fromkeys(parse(op) if isinstance(op, str) else op for op in ops))
    each = trials if isinstance(trials, Mapping) else dict.fromkeys(distinct, trials)
    each = {op: _integer("trials", each[op], 1, MAX_TRIALS) for op in distinct}
    chosen = templates and [t if isinstance(t, Template) else registry.get(t) for t in templates]
    serving = {op: _serving(op, target, chosen) for op in distinct}
    if log is not None:
        log.check_writable()
    report = on_event or (lambda event: None)
    model = CostModel(seed)
    settings = Settings(target, each, log, seed, strategy, model, report, machine, threads)
    teach(model, settings.known(), target, besides=distinct)
    pool = farm.pool(jobs, timeout) if farm else Pool(jobs, timeout, threads)
    with pool:
        return Run(settings, serving, pool).results()


def _integer(name: str, value: Any, low: int, high: int) -> int:
    """The value as an int: one of Python or NumPy in low..high, but no bool. TuneError if not."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TuneError(f"{name}={value!r} is not an integer")
    if not low <= number <= high:
        raise TuneError(f"{name}={number} is outside {low}..{high}")
    return number


def _threads(threads: Any, jobs: int) -> int:
    """The number of threads. Raises TuneError for more than there are cores, or where builders
    would disturb them."""
    cores = max(len(allowed_cores()), 1)
    threads = _integer("threads", threads, 1, cores)
    spare = most_jobs(threads)
    if threads > 1 and jobs > spare:
        raise TuneError(
            f"jobs={jobs} is more than {spare}: {threads} of {cores} cores are for timing"
        )
    return threads


def most_jobs(threads: int) -> int:
    """How many processes may build beside timing on `threads` threads: one on each other core."""
    cores = len(allowed_cores())
    return max(cores, 1) if threads == 1 else max(cores - threads, 1)


def _runnable(target: Target | str, machine: Machine) -> Target:
    """The target. Raises TuneError when the runner's machine cannot run its code."""
    target = target if isinstance(target, Target) else Target.parse(target)
    if missing := target.missing_on(machine.features):
        raise TuneError(
            f"target {target.name}: tuning measures on this machine, and its CPU lacks "
            f"{', '.join(missing)}"
        )
    return target


def _serving(op: Operator, target: Target, chosen: list[Template] | None) -> list[Template]:
    """The templates that compete for an operator. Raises TuneError when none applies."""
    if chosen is None:
        explained = registry.explain(op, target)
    else:
        explained = {template: template.why_not(op, target) for template in chosen}
    serving = [template for template, reason in explained.items() if reason is None]
    if not serving:
        raise TuneError(registry.no_template(op, target, explained))
    return serving
