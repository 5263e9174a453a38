"""The process in which a kernel and other libraries take turns; `contest` starts it.

    python -m lpgen.bench.turns PIPE PARENT REFUSE_AMX THREADS PEER...

PIPE: the file descriptor of its end of a pipe; PARENT: its parent's process id. It answers one Task
at a time, until the pipe closes. Threads of libraries are bound to the same cores as ours. On
several threads a turn begins when those of the turn before sleep; a library whose threads do not is
the end of the process, and the next one leaves it out.
"""

import os
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from lpgen import runtime
from lpgen.bench import peers
from lpgen.bench.case import Case, Contender, Disagrees, Unsupported
from lpgen.bench.comparison import OURS, Comparison, Entry
from lpgen.bench.floats import FloatCase
from lpgen.bench.grouped import GroupedCase
from lpgen.bench.isa import refuse_amx
from lpgen.bench.measure import pinned, serving
from lpgen.bench.messages import Failed, Phase, Present, Task
from lpgen.bench.probes import timed
from lpgen.bench.quiet import LIMIT, wait_until_quiet
from lpgen.errors import LpgenError, UserError
from lpgen.ops import Operator, Product, parse
from lpgen.runtime.memory import aligned_copy
from lpgen.supervise import connect
from lpgen.tune.timing import Run, time_calls, time_in_turns

FIRST_ROUNDS = 3
HOPELESS = 4.0
"""What is this many times slower than the fastest after the first rounds is not timed further."""


_LONG_TURNS = {"warm": 10e-3, "lap": 10e-3}
"""Seconds on several threads: time for a library's own to wake up and to find their pace."""

Key = tuple[str, str]
"""(peer, way)"""


class Turns:
    """Prepares what takes part for one operator after the other, and times it."""

    def __init__(self, names: list[str], threads: int, say: Callable[[Any], None]) -> None:
        self._threads, self._say = threads, say
        self._call_times: dict[tuple[str, str, str], float | None] = {}
        self.present = Present({}, {})
        for name in names:
            say(Phase(name, "import"))
            try:
                self.present.versions[name] = peers.get(name).version()
            except ImportError as error:
                self.present.absent[name] = f"not installed ({_first_line(error)})"

    def answer(self, task: Task) -> Comparison | Failed:
        """One comparison, or why there is none."""
        try:
            return self.run(task)
        except LpgenError as error:
            return Failed(str(error))

    def run(self, task: Task) -> Comparison:
        """One comparison. Raises Disagrees where the kernel itself is wrong."""
        op = parse(task.workload)
        kernel = serving(runtime.load(task.path), op)
        case = case_of(op, task.seed)
        template = kernel.variant["template"]
        found = {(OURS, template): ours(kernel, case, self._threads)}
        refused: dict[str, str] = {}
        for peer in self.present.versions:
            found |= self._prepared(peer, case, task.skipped, refused)
        times = self._time(found, task)
        entries = [
            Entry(
                peer, way, c.out, c.weight, *times[peer, way], self._call_time(peer, way, op, task)
            )
            for (peer, way), c in found.items()
        ]
        return Comparison(
            workload=op.name,
            target=kernel.variant["target"],
            template=template,
            knobs=kernel.variant["knobs"],
            origin=kernel.variant.get("origin", ""),
            threads=self._threads,
            ours=entries[0],
            entries=tuple(entries[1:]),
            refused=refused,
        )

    def _time(self, found: dict[Key, Contender], task: Task) -> dict[Key, tuple[float, float]]:
        """(best, median) in microseconds."""
        self._say(Phase("", "timing"))
        # Not the thread's own time: a library may leave the work to other threads.
        runs = {key: timed(c.call, time.perf_counter_ns) for key, c in found.items()}
        laps = self._laps(runs, FIRST_ROUNDS)
        limit = HOPELESS * min(map(min, laps.values()))
        near = {k: run for k, run in runs.items() if k[0] == OURS or min(laps[k]) < limit}
        for key, seconds in self._laps(near, task.rounds - FIRST_ROUNDS).items():
            laps[key] += seconds
        return {key: (min(times) * 1e6, median(times) * 1e6) for key, times in laps.items()}

    def _laps(self, runs: dict[Key, Run], rounds: int) -> dict[Key, list[float]]:
        """Seconds of each run in each round."""
        keys, turns = list(runs), {}
        if self._threads > 1:
            turns = {"before": lambda place: self._quiet(keys[place - 1]), **_LONG_TURNS}
        laps = time_in_turns(list(runs.values()), rounds, on_round=lambda: None, **turns)
        return dict(zip(keys, laps, strict=True))

    def _quiet(self, last: Key) -> None:
        """Wait until the threads of `last` sleep; where they do not, no turn is fair: end."""
        if self._threads > 1 and not wait_until_quiet():
            self._say(Phase("" if last[0] == OURS else last[0], last[1]))
            print(f"its threads still work {LIMIT:g} s after its turn", flush=True)
            os._exit(1)

    def _prepared(
        self,
        peer: str,
        case: Case,
        skipped: dict[Key, str],
        refused: dict[str, str],
    ) -> dict[Key, Contender]:
        """The ways of a peer that work and agree with the oracle; reasons go to `refused`."""
        found = {}
        try:
            if case.beyond:
                raise Unsupported(case.beyond)
            ways = peers.get(peer).variants(case, self._threads)
        except Unsupported as error:
            refused[peer] = str(error)
            return {}
        for way, prepare in ways.items():
            if (peer, way) in skipped:
                refused[f"{peer} {way}"] = skipped[peer, way]
                continue
            self._say(Phase(peer, way))
            try:
                found[peer, way] = _checked(prepare, case)
            except (Unsupported, Disagrees) as error:
                refused[f"{peer} {way}"] = str(error)
            except Exception as error:
                # Whatever a library raises, it cannot run this operator, and that is its reason.
                refused[f"{peer} {way}"] = f"{type(error).__name__}: {_first_line(error)}"
            self._quiet((peer, way))
        return found

    def _call_time(self, peer: str, way: str, op: Product, task: Task) -> float | None:
        """Microseconds of a call for the smallest operator; None if it cannot run that."""
        small = op.smallest()
        # One kernel of ours is called like the other.
        key = (peer, "" if peer == OURS else way, small.name)
        if key not in self._call_times:
            self._say(Phase(peer, way))
            case = case_of(small, task.seed)
            try:
                if peer == OURS:
                    contender = ours(runtime.load(task.small)[small.name], case, self._threads)
                else:
                    contender = _checked(peers.get(peer).variants(case, self._threads)[way], case)
            except Exception:
                self._call_times[key] = None
            else:
                self._quiet((peer, way))
                run = timed(contender.call, time.perf_counter_ns)
                self._call_times[key] = time_calls(run).seconds * 1e6
        return self._call_times[key]


def compared(op: Operator) -> Product:
    """The operator. Raises UserError for those that other libraries are not asked for."""
    if not isinstance(op, Product):
        raise UserError(f"{op.kind}: other libraries are compared for conv2d and dense")
    if op.layers:
        raise UserError(
            f"layers={op.layers}: no other library has weights of as many bits as asked"
        )
    return op


def case_of(op: Product, seed: int) -> Case:
    """What other libraries are asked to compute, or why they are not asked (`Case.beyond`)."""
    own = op.hadamard or op.lhs.group or (op.lhs.real and not op.group_size)
    kind = FloatCase if own else GroupedCase if op.group_size else Case
    return kind.random(op, seed)


def ours(kernel: runtime.Kernel, case: Case, threads: int) -> Contender:
    """The kernel bound to the case's input. Raises Disagrees unless its result is the oracle's."""
    expected = case.expected
    y = aligned_copy(np.zeros_like(expected))
    packed = kernel.pack_weights(case.w, **case.parameters)
    call = kernel.bind(x=case.x, packed=packed, residual=case.residual, out=y, threads=threads)
    if wrong := np.count_nonzero(y != expected):
        raise Disagrees(f"{wrong} of {y.size} results differ from the oracle's")
    return Contender(call, lambda: y, case.op.out, str(case.op.weight))


def _checked(prepare: Callable[[], Contender], case: Case) -> Contender:
    contender = prepare()
    contender.call()
    case.check(contender)
    return contender


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else "no message"


def main(arguments: list[str]) -> None:
    """Serve one contest; `arguments` as in the module's description."""
    pipe, parent, refuse, threads, *names = arguments
    connection = connect(pipe, parent)
    if int(refuse):
        refuse_amx()
    with pinned(int(threads)):
        turns = Turns(names, int(threads), connection.send)
        connection.send(turns.present)
        while True:
            try:
                task = connection.recv()
            except EOFError:
                return
            connection.send(turns.answer(task))


if __name__ == "__main__":
    main(sys.argv[1:])
    # Some libraries crash while they are unloaded; everything is said by now.
    sys.stdout.flush()
    os._exit(0)
