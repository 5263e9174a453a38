"""Cycles of candidates for CPUs that are not at hand, by a static model: no kernel is run.

What llvm-mca says of the hot loop counts for all of its iterations; the rest of the kernel, and
what it reads from beyond the L1 cache, costs what the fitted cost model says
(docs/static_model.md).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from lpgen import cost
from lpgen.build import mca
from lpgen.build.assembly import (
    COUNTING,
    LOOKING_UP,
    MULTIPLYING,
    PAIRING,
    Loop,
    hot_loops,
    product_loop,
)
from lpgen.build.compiler import compile_apart
from lpgen.errors import LpgenError, UserError
from lpgen.records import Record
from lpgen.space import Counts
from lpgen.templates import Template
from lpgen.tune.messages import Candidate

INSIDE = frozenset(
    (
        "products",
        "multiplied",
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

OF_TILES = frozenset(("tiles", "runs", "stores"))
"""What lies in it too where k is so short that the loop is one over tiles, and stores results."""

LOOKUPS = frozenset(("lut_product", "lut_sum", "lut_weight"))
"""Algorithms whose products are looked up. They spill wide sums behind the loop, where narrow ones
are added to them."""

NEAR = frozenset(("l2", "l3", "far", "written"))
"""Bytes from the caches beyond the first, which a CPU that executes out of order asks for in
time."""

IN_ORDER = ("cortex-a7", "cortex-a53", "cortex-a55")
"""LLVM's names of CPUs that do not."""

GHZ = 3.0
"""Cycles of a nanosecond of the cost model."""

HOPELESS = 0.7
"""As the log of a factor: what the cost model expects of a template that is not looked into."""

PATIENCE = 0.1
"""What a candidate that was looked at takes from the lead of its template."""

HIDDEN = 0.7
"""What of the bytes from the L2 cache comes while the hot loop of a CPU in order computes."""

SPILL = 1.0
"""Cycles that a vector is waited for that was written because it had no register: llvm-mca takes
what is read again for something else."""

LINE = 64
HINT = 1.0
"""Cycles that it takes to ask in advance for a line which comes from memory: the hardware asks for
it too, and it is looked up twice."""

BESIDE = 0.1
"""What counts of the shorter of computing and reading from memory."""


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
    loop, often = _repeated(template, counts, loops)
    if not often:
        raise UserError(f"{what}: its hot loop has no products")
    hot = mca.loop(loop.lines, target)
    each = hot.cycles + SPILL * loop.spilled
    counts |= {"hints": counts.get("dram", 0.0) * loop.asks_ahead}
    total = beside(template, target, counts, each * often, bool(loop.stores))
    return Modelled(candidate, total, bound=min(1.0, hot.bound / each))


def _repeated(template: Template, counts: Counts, loops: list[Loop]) -> tuple[Loop, float]:
    """The hot loop and how many times it runs (0: nobody knows): the products that the template
    counts over those that it holds."""
    if "counting" in counts:  # adders take most of the products, and LLVM any instruction for those
        key, keys = COUNTING, counts["counting"]
    elif template.algorithm in LOOKUPS:
        key, keys = LOOKING_UP, counts["products"]
    else:
        key, keys = MULTIPLYING, counts.get("multiplied", counts.get("products", 0.0))
    loop = product_loop(loops, key)
    held = loop.holds(key)
    if key is MULTIPLYING:
        held = loop.holds(PAIRING) or held
    return loop, keys / held if held else 0.0


def beside(
    template: Template, target: Any, counts: Counts, hot: float, stores: bool = False
) -> float:
    """Cycles of a kernel whose hot loop takes `hot` in all.

    stores: whether that stores the results. Bytes from memory come while a CPU that executes out of
    order computes: the longer of both counts, and little of the other.
    """
    inside = INSIDE
    if stores:
        inside = inside | OF_TILES | {"flush"}
    elif template.algorithm in LOOKUPS:
        inside = inside - {"spilled"}
    outside = {name: count for name, count in counts.items() if name not in inside}
    hints = outside.pop("hints", 0.0) / LINE
    if target.llvm_cpu in IN_ORDER:
        outside["l2"] = outside.get("l2", 0.0) * (1 - HIDDEN)
        return hot + _priced(template, target, outside)
    memory = {"dram": outside.pop("dram", 0.0)}
    near = {name: count for name, count in outside.items() if name not in NEAR}
    far = _priced(template, target, memory) + HINT * hints
    both = sorted((hot + _priced(template, target, near), far))
    return both[1] + BESIDE * both[0]


def _priced(template: Template, target: Any, counts: Counts) -> float:
    """Cycles of what was counted, as the fitted cost model has it."""
    return GHZ * cost.shipped().nanoseconds(template, target, counts) * mca.slowness(target)


def search(op: Any, target: Any, serving: Sequence[Template], count: int) -> Iterator[Modelled]:
    """The cycles of `count` candidates: the best of each kind that the cost model does not think
    hopeless, for it was fitted to other CPUs, then other tiles of the kind that is ahead, each with
    the blocks that cost least: they do not change the hot loop. A kind is a template with a place
    where it reads the left side. Portable loops, which the model cannot tell apart, are left out;
    nothing where none else serves.
    """
    ranked = _ranked(op, target, serving)
    waiting: dict[tuple, list[Candidate]] = {}
    hopeful = [c for c in ranked if c.cost <= ranked[0].cost + HOPELESS]
    for c in _with_best_blocks(op, target, hopeful):
        kind = c.template, c.knobs.get("left")
        waiting.setdefault(kind, []).append(Candidate(c.template, c.knobs))
    best: dict[tuple, float] = dict.fromkeys(waiting, 0.0)
    tried: Counter[tuple] = Counter()

    def hope(kind: tuple) -> float:
        """How soon it is its turn: of what was looked at often more is expected of others."""
        return best[kind] * (1 + PATIENCE * tried[kind])

    for _ in range(count):
        ahead = min((kind for kind in waiting if waiting[kind]), key=hope, default=None)
        if ahead is None:
            return
        [found] = model(op, target, [waiting[ahead].pop(0)])
        known = [cycles for cycles in (best[ahead], found.cycles) if cycles]
        best[ahead] = min(known, default=math.inf)
        tried[ahead] += 1
        yield found


def _ranked(op: Any, target: Any, serving: Sequence[Template]) -> list[cost.Candidate]:
    """What the cost model likes best of each kind, the best first."""
    own = [t for t in serving if t.counted and t.family != target.families[-1]]
    found = []
    for template in own or [t for t in serving if t.counted]:
        space = template.space(op, target)
        for left in space.knobs.get("left", (None,)):
            chosen = {"left": left} if left else {}
            if next(iter(space.narrowed(chosen)), None):
                found += cost.candidates(op, target, [template], chosen=chosen)
    return sorted(found, key=lambda candidate: candidate.cost)


def _with_best_blocks(
    op: Any, target: Any, ranked: Iterable[cost.Candidate]
) -> list[cost.Candidate]:
    """One candidate of each register tile, in the order of their firsts."""
    best: dict[tuple, tuple[float, cost.Candidate]] = {}
    for c in ranked:
        least = beside(c.template, target, c.template.work(op, target, c.knobs), 0.0)
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
