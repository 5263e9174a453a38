"""The process in which a network and other libraries, with its ONNX file, take turns.

    python -m lpgen.bench.network_turns PIPE PARENT REFUSE_AMX THREADS

`network_contest` starts it. It answers one NetworkTask, and says before what it is about to do.
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
from lpgen.bench.case import Unsupported
from lpgen.bench.comparison import OURS
from lpgen.bench.isa import refuse_amx
from lpgen.bench.measure import pinned
from lpgen.bench.messages import NetworkTask, NetworkTimes, Phase
from lpgen.bench.network import bound_call
from lpgen.bench.probes import timed
from lpgen.bench.quiet import wait_until_quiet
from lpgen.network.examples import inputs_of
from lpgen.supervise import connect
from lpgen.tune.timing import Run, time_in_turns

_LONG_TURNS = {"warm": 10e-3, "lap": 10e-3}
"""Seconds on several threads: time for a library's own to wake up and to find their pace."""


def run(task: NetworkTask, threads: int, say: Callable[[Any], None]) -> NetworkTimes:
    """Prepare all, compare their outputs, and time them in turns."""
    say(Phase("", "calling the network"))
    network = runtime.load(task.library).versions[task.version]
    inputs = task.inputs or inputs_of(network, np.random.default_rng(task.seed))
    call, ours = bound_call(network, inputs, threads)
    runs: dict[str, Run] = {OURS: timed(call, time.perf_counter_ns)}
    found = NetworkTimes({}, {}, {}, {})
    for name in task.names:
        try:
            say(Phase(name, "import"))
            peer = peers.get(name)
            found.versions[name] = peer.version()
            say(Phase(name, "model"))
            if not hasattr(peer, "model"):
                raise Unsupported("runs no ONNX files")
            outputs = {n: np.zeros_like(y) for n, y in ours.items()}
            theirs = peer.model(task.model, inputs, outputs, threads)
            theirs()
            found.differences[name] = _difference(ours, outputs)
            runs[name] = timed(theirs, time.perf_counter_ns)
        except Exception as error:
            # Whatever a library raises, it cannot run this model, and that is its reason.
            found.refused[name] = " ".join(str(error).split())[:200] or type(error).__name__
    say(Phase("", "timing"))
    turns = {"before": lambda _: wait_until_quiet(), **_LONG_TURNS} if threads > 1 else {}
    laps = time_in_turns(list(runs.values()), task.rounds, on_round=lambda: None, **turns)
    for name, seconds in zip(runs, laps, strict=True):
        found.times[name] = min(seconds) * 1e6, median(seconds) * 1e6
    return found


def _difference(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> str:
    """Where outputs differ most, in words; "": nowhere."""
    for name, y in ours.items():
        other = theirs[name]
        if np.array_equal(y, other, equal_nan=y.dtype.kind == "f"):
            continue
        apart = np.abs(y.astype(np.float64) - other.astype(np.float64))
        count, most = np.count_nonzero(apart), float(np.nanmax(apart))
        text = f"{count} of {y.size} of output {name} differ, by up to {most:.3g}"
        largest = float(np.nanmax(np.abs(y.astype(np.float64)), initial=0))
        return f"{text} ({most / largest:.1e} of the largest)" if largest else text
    return ""


def main(arguments: list[str]) -> None:
    """Serve; `arguments` as in the module's description."""
    pipe, parent, refuse, threads = arguments
    connection = connect(pipe, parent)
    if int(refuse):
        refuse_amx()
    with pinned(int(threads)):
        connection.send(run(connection.recv(), int(threads), connection.send))
        connection.poll(None)  # until the parent has read it


if __name__ == "__main__":
    main(sys.argv[1:])
    # Some libraries crash while they are unloaded; everything is said by now.
    sys.stdout.flush()
    os._exit(0)
