"""The kernel of an operator in a network, whose weights are out of the L2 cache when it begins.

Records and the cost model are of kernels that are called again and again, with weights in the cache
wherever these fit. In a network other layers run in between: what a kernel stores comes from the L3
cache or from memory first, and one that stores more than the codes (transformed, expanded) pays for
it. Kernels of several tiles of rows ask for the next panel while they work on one
(`lpgen.tir.prefetch`). Asking for some KiB in advance besides costs up to 3 % where weights are in
the cache, and saves 6 to 25 % where they are not in kernels that do not ask for the next panel (one
thread of an Ice Lake server, 2026-11-28, 0.6 to 2.4 MB in L3: `prefetch` 0 and 4096).
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from lpgen import cost, records, templates
from lpgen.build.choice import Choice
from lpgen.cost import Candidate
from lpgen.errors import ScheduleRefused
from lpgen.ops import Operator, Product
from lpgen.records.choose import choice_of, ranking
from lpgen.records.log import Log
from lpgen.records.record import Record
from lpgen.target import Target

FEW_CORES = 8
RATES = {True: 20e9, False: 12e9}
"""Bytes a second that one thread reads beside its work, about: of the memory of few cores (Zen 4:
ResNet-18 of 2 bits takes 3.8 ms where kernels are chosen so, 4.5 with 60e9, as its weights are 27
MB then and not 10; of 4 bits as long, with 7.5 MB and not 31), and of the mesh of a server (Ice
Lake, where kernels did not ask for the next panel yet)."""

MORE = 2**19
"""Bytes beyond the codes that are worth a second look: some 40 microseconds."""

LARGE = 2**18
"""Bytes of weights that are asked for in advance."""

CLEARLY = 0.9
"""What the time of another kernel has to be of the chosen one's: expectations are not exact."""


def with_cold_weights(choice: Choice, logs: Iterable[Log | str | os.PathLike] = ()) -> Choice:
    """The choice, or what is expected to be clearly faster where each call reads the weights from
    beyond the L2 cache: by the cost model, in proportion to the record that the choice is of. Many
    bytes are asked for in advance.

    logs: as `choose` takes them.
    """
    if not isinstance(choice.op, Product):
        return choice
    return asking_ahead(_smaller(choice, logs))


def asking_ahead(choice: Choice) -> Choice:
    """The choice with the knob that asks for weights in advance, where they are many; of winograd
    without blocks, each of which reads all weights again."""
    op, target, template = choice.op, choice.target, templates.get(choice.template)
    knobs, space, nbytes = (
        dict(choice.knobs),
        template.space(op, target),
        choice.kernel.packed_bytes,
    )
    if nbytes >= LARGE and "prefetch" in knobs:
        knobs["prefetch"] = max(space.knobs["prefetch"])
    if nbytes >= MORE and template.algorithm == "winograd":
        knobs["block"] = 0
    if knobs == choice.knobs or knobs not in space:
        return choice
    try:
        return replace(choice, knobs=knobs, kernel=template.kernel(op, target, knobs))
    except ScheduleRefused:
        return choice


def _smaller(choice: Choice, logs: Iterable[Log | str | os.PathLike]) -> Choice:
    """The choice, or a kernel that stores less."""
    op, target = choice.op, choice.target
    if choice.kernel.packed_bytes - _codes_bytes(op) < MORE:
        return choice
    own = cost.evaluate(op, target, [(templates.get(choice.template), dict(choice.knobs))])
    if own is None:
        return choice
    logs = [log if isinstance(log, Log) else Log(log) for log in logs]
    known, measured = _record(own, op, target, logs), _measured(op, target, logs)
    unit = known.seconds / math.exp(own.cost) if known else 1e-9
    limit, best = CLEARLY * _seconds(unit * math.exp(own.cost), choice), choice
    for candidate in _firsts(ranking(op, target)):
        record = measured.get(candidate.template.name)
        knobs = candidate.knobs if record is None else record.knobs
        expected = unit * math.exp(candidate.cost) if record is None else record.seconds
        if record is None and known is not None:
            expected = max(expected, _least(known, candidate))
        try:
            other = choice_of(op, target, candidate.template, dict(knobs))
        except ScheduleRefused:
            continue
        if (seconds := _seconds(expected, other)) < limit:
            limit, best = seconds, other
    return best


def _measured(op: Product, target: Target, logs: Sequence[Log]) -> dict[str, Record]:
    """The fastest record of each template for the operator on this target: better than what the
    model expects."""
    found: dict[str, Record] = {}
    for _, record in records.ranked(op, target, logs):
        known = found.get(record.template)
        usable = record.threads == 1 and record.seconds is not None
        if usable and (known is None or record.seconds < known.seconds):
            if records.why_not(record, op, target) is None:
                found[record.template] = record
    return found


def _codes_bytes(op: Product) -> int:
    """Bytes of the weights' codes."""
    return math.prod(op.w_shape) * op.weight.bits // 8


def _record(own: Candidate, op: Operator, target: Target, logs: Sequence[Log]) -> Record | None:
    """The record that the choice is of: of the operator or of that without an epilogue."""
    for like in dict.fromkeys((op, op.plain)):
        record = records.best(like, target, logs)
        if record is not None and record.template == own.template.name:
            return record
    return None


def _least(known: Record, candidate: Candidate) -> float:
    """Seconds that a candidate takes at least: tuning found none of its template, or of none but
    the best one, that is faster."""
    if candidate.template.name == known.template:
        return known.seconds
    return known.runner_up.seconds if known.runner_up else 0.0


def _seconds(alone: float, choice: Choice) -> float:
    """What a call takes that takes `alone` with its weights in the cache."""
    return alone + choice.kernel.packed_bytes / RATES[choice.target.cores <= FEW_CORES]


def _firsts(ranked: Iterable[Candidate]) -> Iterator[Candidate]:
    """The first of each template, and of each form in which it stores weights."""
    seen = set()
    for candidate in ranked:
        key = candidate.template.name, candidate.knobs.get("weights")
        if key not in seen and math.isfinite(candidate.cost):
            seen.add(key)
            yield candidate
