"""What RPC costs a candidate beside its own time: a server on this machine, and real candidates.

    python tests/rpc_overhead.py [WORKLOAD] [--candidates N]

A candidate's own time is what the device says that checking and timing took; the rest of what its
caller waits is overhead: packing, the way through link, session and server, loading, and back.
"""

import argparse
import time
from dataclasses import replace
from statistics import mean, median, quantiles

from servers import KEY, servers

from lpgen import templates
from lpgen.farm import Farm
from lpgen.farm.protocol import Timed, packed
from lpgen.farm.remote import RemoteRunner
from lpgen.ops import parse
from lpgen.target import Target
from lpgen.tune.builder import Builder
from lpgen.tune.built import Built
from lpgen.tune.messages import Candidate

DEFAULT = "dense m=16 n=256 k=256 act=u8 weight=s4"
NATIVE = Target.parse("native")


def built(builder: Builder, op) -> list[Built]:
    """The default of each template that knows what it costs."""
    serving = [t for t in templates.templates_for(op, NATIVE) if t.counted]
    defaults = [Candidate(t, t.default(op, NATIVE)) for t in serving]
    return [builder.build(op, NATIVE, candidate, 0, 1) for candidate in defaults]


def overheads(op, count: int, farm: Farm) -> tuple[list[float], list[float], list[int]]:
    """Milliseconds beside each candidate's own time, these times, and bytes of machine code; the
    first candidate, with which the operator's inputs go over, first."""
    builder, runner, found = Builder(), RemoteRunner(farm.address, 10.0), ([], [], [])
    runner.open(builder.problem(op, 0))
    ready = [runner.load(each, builder.weights) for each in built(builder, op)]
    for number in range(count):
        one = ready[number % len(ready)]
        # Bytes behind a shared object make it another one, which has to be loaded.
        code = one.built.code + bytes(number)
        one = one._replace(built=replace(one.built, code=code))
        began = time.perf_counter()
        timed = packed(Timed(one.built, ready[0].built, 1e-4, float("inf")))
        answer = runner.ask("measure", timed, 60.0, [one, ready[0]])
        waited = time.perf_counter() - began
        values = 1e3 * (waited - answer["took"]), 1e3 * answer["took"], len(code)
        for each, value in zip(found, values, strict=True):
            each.append(value)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", nargs="?", default=DEFAULT)
    parser.add_argument("--candidates", type=int, default=24)
    given = parser.parse_args()
    with servers(1) as there, Farm(there.tracker, KEY) as farm:
        beside, own, sizes = overheads(parse(given.workload), given.candidates, farm)
    first, rest = beside[0], beside[1:]
    print(
        f"first candidate {first:.1f} ms beside its own time, the others {median(rest):.1f} ms "
        f"(median; mean {mean(rest):.1f}, nine of ten below {quantiles(rest, n=10)[-1]:.1f}); "
        f"their own time {median(own):.0f} ms, machine code {mean(sizes) / 1024:.0f} KiB"
    )


if __name__ == "__main__":
    main()
