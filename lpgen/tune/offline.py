"""Cycles of candidates for CPUs that are not at hand, by a static model: no kernel is run.

What llvm-mca says of the hot loop counts for all of its iterations; the rest of the kernel, and
what it reads from beyond the L1 cache, costs what the fitted cost model says
(docs/static_model.md).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from scipy.stats import spearmanr

from lpgen import cost, templates
from lpgen.build import mca
from lpgen.build.assembly import COUNTING, hot_loops, product_loop
from lpgen.build.compiler import compile_apart
from lpgen.errors import LpgenError, UserError
from lpgen.records import Log, Record
from lpgen.space import Counts
from lpgen.templates import Template
from lpgen.tune.compare import measured_table
from lpgen.tune.messages import Candidate

INSIDE = frozenset(
    (
        "products",
        "adders",
        "counts",
        "counting",
        "loads",
        "unpack",
        "indices",
        "shuffles",
        "stall",
        "spilled",
    )
)
"""What of a template's counts lies in the hot loop."""

SPILLS_BESIDE = frozenset(("lut_product", "lut_sum", "lut_weight"))
"""Algorithms that spill wide sums behind the loop, where narrow ones are added to them."""

GHZ = 3.0
"""Cycles of a nanosecond of the cost model."""

HOPELESS = 0.7
"""As the log of a factor: what the cost model expects of a template that is not looked into."""

PATIENCE = 0.1
"""What a candidate that was looked at takes from the lead of its template."""

HIDDEN = 0.7
"""What of the bytes from the L2 cache comes while the hot loop computes."""


class Modelled(NamedTuple):
    """A candidate and the cycles of a call, None: why it cannot be modelled; bound: the part of
    the cycles of its hot loop that its instructions need if none waits (`mca.Loop`)."""

    candidate: Candidate
    cycles: float | None
    failed: str | None = None
    bound: float | None = None


def model(op: Any, target: Any, candidates: Iterable[Candidate]) -> Iterator[Modelled]:
    """The cycles of each, as soon as it is compiled. Raises UserError without llvm-mca."""
    mca.find()
    for candidate in candidates:
        try:
            yield cycles(op, target, candidate)
        except LpgenError as error:
            yield Modelled(candidate, None, str(error))


def cycles(op: Any, target: Any, candidate: Candidate) -> Modelled:
    """The candidate with cycles of one call on one thread. Raises LpgenError where it cannot be
    built or modelled."""
    template, knobs = candidate.template, candidate.knobs
    counts = template.work(op, target, knobs)
    kernel = template.kernel(op, target, knobs)
    what = f"{op.name}: {candidate} for {target.name}"
    compiled = compile_apart(what, {"kernel": kernel.function}, target)
    loops = hot_loops(compiled.assembly)
    if not loops:
        raise UserError(f"{what}: its code has no hot loop")
    loop = product_loop(loops)
    hot = mca.loop(loop.lines, target)
    if "counting" in counts:  # adders take most of the products, and LLVM any instruction for those
        keys, held = counts["counting"], loop.holds(COUNTING)
    else:
        keys, held = (
            counts.get("products", 0.0) + counts.get("shuffles", 0.0),
            loop.key_instructions,
        )
    if not held:
        raise UserError(f"{what}: its hot loop counts no bits")
    total = hot.cycles / held * keys + around(template, target, counts)
    return Modelled(candidate, total, bound=min(1.0, hot.bound / hot.cycles))


def around(template: Template, target: Any, counts: Counts) -> float:
    """Cycles of what is not in the hot loop."""
    inside = INSIDE - {"spilled"} if template.algorithm in SPILLS_BESIDE else INSIDE
    outside = {
        name: count * (1 - HIDDEN if name == "l2" else 1)
        for name, count in counts.items()
        if name not in inside
    }
    nanoseconds = cost.shipped().nanoseconds(template, target, outside)
    return GHZ * nanoseconds * mca.slowness(target)


def search(op: Any, target: Any, serving: Sequence[Template], count: int) -> Iterator[Modelled]:
    """The cycles of `count` candidates: the best of each template that the cost model does not
    think hopeless, for it was fitted to other CPUs, then other tiles of the template that is ahead,
    each with the blocks that cost least: they do not change the hot loop. Portable loops, which the
    model cannot tell apart, are left out; nothing where none else serves.
    """
    counted = [template for template in serving if template.counted]
    ranked = [c for c in cost.candidates(op, target, counted) if c.template.counted]
    waiting: dict[Template, list[Candidate]] = {}
    hopeful = [c for c in ranked if c.cost <= ranked[0].cost + HOPELESS]
    for c in _with_best_blocks(op, target, hopeful):
        waiting.setdefault(c.template, []).append(Candidate(c.template, c.knobs))
    best: dict[Template, float] = dict.fromkeys(waiting, 0.0)
    tried: Counter[Template] = Counter()

    def hope(template: Template) -> float:
        """How soon it is its turn: of what was looked at often more is expected of others."""
        return best[template] * (1 + PATIENCE * tried[template])

    for _ in range(count):
        ahead = min((t for t in waiting if waiting[t]), key=hope, default=None)
        if ahead is None:
            return
        [found] = model(op, target, [waiting[ahead].pop(0)])
        known = [cycles for cycles in (best[ahead], found.cycles) if cycles]
        best[ahead] = min(known, default=math.inf)
        tried[ahead] += 1
        yield found


def _with_best_blocks(
    op: Any, target: Any, ranked: Iterable[cost.Candidate]
) -> list[cost.Candidate]:
    """One candidate of each register tile, in the order of their firsts."""
    best: dict[tuple, tuple[float, cost.Candidate]] = {}
    for c in ranked:
        least = around(c.template, target, c.template.work(op, target, c.knobs))
        tile = cost.tile_of(c)
        if tile not in best or least < best[tile][0]:
            best[tile] = least, c
    return [c for _, c in best.values()]


def records_of(op: Any, target: Any, modelled: Sequence[Modelled]) -> list[Record]:
    """Records of those that could be modelled, the best last and marked."""
    known = sorted((m for m in modelled if m.cycles), key=lambda m: -m.cycles)
    return [
        Record(
            workload=op.name,
            target=target.name,
            template=m.candidate.template.name,
            knobs=m.candidate.knobs,
            seconds=None,
            cycles=m.cycles,
            bound=m.bound and round(m.bound, 3),
            trials=len(known),
            best=m is known[-1],
        )
        for m in known
    ]


class Judged(NamedTuple):
    """The static model beside what was measured, of the candidates of one template.

    spearman: the rank correlation of cycles with seconds; regret: how much longer the best of the
    five with fewest cycles takes than the best of all (0: it is among them).
    """

    template: str
    candidates: int
    spearman: float
    regret: float


TOP = 5
FEWEST = 8
"""Candidates of a template below which a rank correlation says nothing."""


def judge(op: Any, target: Any, log: Log, most: int) -> list[Judged]:
    """The model beside the candidates of each template that the log holds for this CPU, of which
    at most `most` are looked at, evenly from the fastest to the slowest."""
    timed: dict[str, list[tuple[float, Candidate]]] = {}
    for (name, knobs), seconds in measured_table(op, target, log).items():
        template = templates.get(name)
        if seconds is not None and template.counted:
            timed.setdefault(name, []).append((seconds, Candidate(template, json.loads(knobs))))
    found = []
    for name, entries in timed.items():
        entries = sorted(entries, key=lambda entry: entry[0])
        step = max(1.0, len(entries) / most)
        some = [entries[int(i * step)] for i in range(min(most, len(entries)))]
        pairs = [
            (seconds, m.cycles)
            for seconds, m in zip(
                (seconds for seconds, _ in some),
                model(op, target, (c for _, c in some)),
                strict=True,
            )
            if m.cycles
        ]
        if len(pairs) >= FEWEST:
            found.append(Judged(name, len(pairs), *_beside(pairs)))
    return found


def _beside(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(Spearman, regret) of (seconds, cycles)."""
    seconds, cycles = zip(*pairs, strict=True)
    top = sorted(pairs, key=lambda pair: pair[1])[:TOP]
    return float(spearmanr(seconds, cycles).statistic), min(top)[0] / min(seconds) - 1
