"""What the operators of a tuning run share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lpgen.ops import Operator
from lpgen.records import Log, Record
from lpgen.target import Target
from lpgen.tune.built import Machine
from lpgen.tune.cost_model import CostModel
from lpgen.tune.events import TuneEvent


@dataclass(frozen=True)
class Settings:
    """The arguments of `tune`, and the runner's machine."""

    target: Target
    trials: Mapping[Operator, int]
    log: Log | None
    seed: int
    strategy: str
    model: CostModel
    on_event: Callable[[TuneEvent], None]
    machine: Machine
    threads: int = 1

    @property
    def logs(self) -> list[Log]:
        """The log, where there is one."""
        return [self.log] if self.log is not None else []

    def known(self) -> list[Record]:
        """What the log holds of this target, number of threads, CPU and versions, oldest first."""
        wanted = self.target.name, self.threads, self.machine.cpu, self.machine.versions
        logged = [record for log in self.logs for record in log.records()]
        return [r for r in logged if (r.target, r.threads, r.cpu, r.versions) == wanted]

    def known_of(self, op: Operator) -> list[Record]:
        """Those of an operator."""
        return [record for record in self.known() if record.workload == op.name]
