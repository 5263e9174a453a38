"""A worker of the tuner that builds nothing: its candidates are how long they would take.

`python -m simulated_worker ...` takes the arguments of `lpgen.farm.worker`. A candidate's machine
code is its modelled time, in as many bytes as machine code has, for devices that sleep so long
(servers.py). So what is measured is the farm, and not the compiler.
"""

import json
import sys
from dataclasses import dataclass

from lpgen.farm import worker
from lpgen.farm.worker import FarmWorker
from lpgen.space import Space
from lpgen.templates import Template
from lpgen.tune.built import Built, Problem

CODE_BYTES = 40_000


@dataclass(frozen=True)
class Modelled(Template):
    """A template whose candidates are seconds: `which` of them, in so many copies as there may be
    trials."""

    family: str = "fake"
    algorithm: str = "modelled"
    seconds: tuple[float, ...] = (1e-3,)
    counted = False

    def why_not(self, op, target):
        return None

    def space(self, op, target):
        return Space({"which": tuple(range(len(self.seconds))), "copy": tuple(range(100))})

    def default(self, op, target):
        return {"which": 0, "copy": 0}


class NoBuilder:
    """In place of a builder of candidates of Modelled."""

    def problem(self, op, seed):
        return Problem(f"{op.name} seed={seed}", op.signature, None, ())

    def build(self, op, target, candidate, seed, threads):
        seconds = candidate.template.seconds[candidate.knobs["which"]]
        code = json.dumps({"seconds": seconds, "candidate": str(candidate)}).encode()
        return Built(f"{op.name} seed={seed}", code.ljust(CODE_BYTES), None, threads)

    def weights(self, key):
        raise AssertionError(f"weights {key} are asked for: candidates of Modelled have none")


class SimulatedWorker(FarmWorker):
    """Serves a pool of a farm without any compiler."""

    def __init__(self, pipe, builder, runner):
        super().__init__(pipe, NoBuilder(), runner)


def main(arguments: list[str]) -> None:
    """As of `lpgen.farm.worker`."""
    worker.main(arguments, SimulatedWorker)


if __name__ == "__main__":
    main(sys.argv[1:])
