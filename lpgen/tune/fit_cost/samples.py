"""What the cost model is fitted to: measured candidates, and what winners say of the losers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from lpgen import cost, records, templates
from lpgen.cost.model import Model, price_name
from lpgen.ops import parse
from lpgen.records import Record, RunnerUp, this_cpu
from lpgen.space import Counts
from lpgen.target import Target, detect

MACHINES = {
    "GenuineIntel 6-167-1 ": {"l1d": 48 << 10, "l2": 2 << 20, "l3": 105 << 20},
    "AuthenticAMD 25-17-1 ": {"l1d": 32 << 10, "l2": 1 << 20, "l3": 32 << 20},
}
"""Caches of the CPUs whose records come with lpgen: rows of the table have others."""

OWN = ("amx", "avx512vnni", "generic")
"""Levels whose templates have prices of their own: other instructions do their products."""

ALIKE = ("bitserial", "lut_product", "lut_sum", "lut_weight")
"""Algorithms whose instructions are those of AVX-512BW with VNNI, too."""


@dataclass
class Sample:
    """One measured candidate. group: measurements that compare with each other; best: a winner."""

    op: Any
    target: Target
    template: Any
    knobs: dict
    seconds: float
    counts: Counts
    group: str
    best: bool
    runner_up: RunnerUp | None = None

    @property
    def prices(self) -> str:
        """The name of its prices."""
        own = self.template.level(self.target) in OWN and self.template.algorithm not in ALIKE
        return price_name(self.template, self.target) if own else self.template.algorithm


def samples_of(found: Iterable[Record], use: Callable[[Record], bool]) -> list[Sample]:
    """The records that `use` wants and that fit their templates today."""
    samples = []
    for record in found:
        sample = _sample(record) if record.seconds and use(record) else None
        if sample is not None:
            samples.append(sample)
    return samples


_parse = cache(parse)


def _sample(record: Record) -> Sample | None:
    op, template = _parse(record.workload), templates.get(record.template)
    target = _machine(record.cpu, Target.parse(record.target))
    if not template.counted or records.why_not(record, op, target) is not None:
        return None
    # Absolute times of one run are those of a machine that had other things to do; a winner's are
    # from a race. Those of one CPU and width of vectors compare with each other.
    level = template.level(target)
    width = "512" if level.startswith("avx512") else level
    group = (
        f"{record.cpu} {width}" if record.best else f"{record.cpu} {target.name} {record.workload}"
    )
    counts = template.work(op, target, record.knobs)
    second = record.runner_up if record.best else None
    common = op, target, template, record.knobs, record.seconds, counts, group, record.best
    return Sample(*common, second)


def _machine(cpu: str, row: Target) -> Target:
    if cpu == this_cpu():
        here = detect()
        return replace(row, l1d=here.l1d, l2=here.l2, l3=here.l3)
    caches = next((c for name, c in MACHINES.items() if cpu.startswith(name)), {})
    return replace(row, **caches)


def losers(winners: Iterable[Sample], model: Model) -> Iterator[Sample]:
    """What the winners say of other templates: the runner-up took its seconds, with the knobs that
    the prices like best, and the others, where they seem faster than that, took no less."""
    for winner in winners:
        second = winner.runner_up
        if second is None:
            continue
        op, target = winner.op, winner.target
        scale = winner.seconds / model.nanoseconds(winner.template, winner.target, winner.counts)
        for template in templates.templates_for(op, target):
            if template == winner.template or not template.counted:
                continue
            knobs = cost.best_points(op, target, template, 1, model)[0]
            counts = template.work(op, target, knobs)
            expected = model.nanoseconds(template, winner.target, counts) * scale
            if template.name == second.template or expected < second.seconds:
                common = op, target, template, knobs, second.seconds, counts
                yield Sample(*common, winner.group, True)
