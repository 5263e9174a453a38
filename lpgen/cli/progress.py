"""What a tuning run shows while it works: a bar on a terminal, else a line for each operator."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lpgen.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress

    from lpgen.ops import Operator
    from lpgen.tune import TuneEvent, TuneResult


@contextlib.contextmanager
def progress(labels: dict[Operator, str], trials: int) -> Iterator[Callable[[TuneEvent], None]]:
    """A function that takes the events of a run over the operators `labels`."""
    console = output.console(stderr=True)
    if not console.is_terminal:
        yield Lines(labels, output.note).take
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield Bar(labels, trials, bar).take


@contextlib.contextmanager
def steps(noun: str) -> Iterator[Callable[[str, int, int], None]]:
    """A function that is told what is being done, how many of these nouns are done, and of how
    many: a bar on a terminal, nothing elsewhere."""
    console = output.console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, of: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    number = TextColumn(f"{{task.completed:.0f}}/{{task.total:.0f}} {noun}")
    text = TextColumn("{task.description}")
    with Progress(BarColumn(), number, TimeRemainingColumn(), text, console=console) as bar:
        task = bar.add_task("", total=1)
        yield lambda what, done, of: bar.update(task, description=what, completed=done, total=of)


class Lines:
    """A line for each operator that is done, or failed."""

    def __init__(self, labels: dict[Operator, str], say: Callable[[str], None]) -> None:
        self._labels, self._say = labels, say
        self._places: dict[Operator, str] = {}

    def take(self, event: TuneEvent) -> None:
        from lpgen.tune import OperatorFailed, OperatorFinished, OperatorStarted

        if isinstance(event, OperatorStarted):
            place = f"[{event.index + 1}/{event.operators}] {self._labels[event.op]}"
            self._places[event.op] = place
        elif isinstance(event, OperatorFinished):
            self._say(f"{self._places[event.op]}: {_summary(event.result)}")
        elif isinstance(event, OperatorFailed):
            self._say(f"{self._places[event.op]}: {event.reason}")


class Bar:
    """A bar over all trials of the run: the operators at work, the last one's best and failures,
    time left."""

    def __init__(self, labels: dict[Operator, str], trials: int, bar: Progress) -> None:
        self._labels, self._bar = labels, bar
        self._lines = Lines(labels, bar.console.print)
        self._expected = trials
        self._failed: Counter[Operator] = Counter()
        self._trials: dict[Operator, int] = {}
        self._done: dict[Operator, int] = {}
        self._at_work: dict[Operator, str] = {}
        self._task: Any = bar.add_task("starting", total=len(labels) * trials, state="")

    def take(self, event: TuneEvent) -> None:
        from lpgen.tune import CandidateMeasured, OperatorStarted, RaceStarted

        self._lines.take(event)
        if isinstance(event, OperatorStarted):
            self._trials[event.op], self._done[event.op] = event.trials, event.resumed
            place = f"[{event.index + 1}/{event.operators}] {self._labels[event.op]}"
            self._at_work[event.op] = place
            later = (event.operators - len(self._trials)) * self._expected
            self._update(state="", total=sum(self._trials.values()) + later)
        elif isinstance(event, CandidateMeasured):
            self._failed[event.op] += event.failed is not None
            self._done[event.op] = event.done
            self._update(state=self._state(event))
        elif isinstance(event, RaceStarted):
            self._update(state=f"racing {event.candidates} leaders")
        else:
            self._done[event.op] = self._trials[event.op]
            del self._at_work[event.op]
            self._update()

    def _update(self, **changes: Any) -> None:
        done, at_work = sum(self._done.values()), ", ".join(self._at_work.values())
        self._bar.update(self._task, completed=done, description=at_work or "done", **changes)

    def _state(self, event: Any) -> str:
        speed = event.fastest and event.op.ops_timed / event.fastest * 1e-9
        best = f"best {speed:.0f} GOP/s" if speed else ""
        failed = self._failed[event.op]
        return f"{best}, {failed} failed" if failed else best


def _foreseen(result: TuneResult) -> str:
    """What the static model's first candidates saved."""
    found = result.foreseen
    if found is None:
        return ""
    saved = output.count(max(0, found.saved(result.trials)), "trial")
    more = " or more" if found.caught is None else ""
    first = output.count(found.candidates, "modelled candidate")
    return f"best of {first} {found.behind:.1%} behind the fastest: saved {saved}{more}"


def _summary(result: TuneResult) -> str:
    seconds, failed = result.best.seconds, sum(result.failed.values())
    lead = output.lead(result.best)
    parts = [
        f"{output.microseconds(seconds)} us, {result.op.ops_timed / seconds * 1e-9:.0f} GOP/s",
        f"{result.best.template} ({lead})" if lead else result.best.template,
        f"{result.trials} trials" + (f" ({result.resumed} from the log)" if result.resumed else ""),
        f"{failed} failed" if failed else "",
        _foreseen(result),
        f"{result.elapsed:.0f} s",
    ]
    return ", ".join(part for part in parts if part)
