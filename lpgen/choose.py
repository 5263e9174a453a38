"""Which kernel an operator gets in a library: what tuning found, or a first guess."""

import math
import os
import warnings
from collections.abc import Iterable
from dataclasses import replace

from lpgen import records, templates
from lpgen.build.source import Choice
from lpgen.errors import ScheduleRefused, UserError
from lpgen.ops import Operator, parse
from lpgen.records import Log, RecordWarning
from lpgen.target import Target
from lpgen.templates import Template


class DefaultWarning(UserWarning):
    """A template that would have been chosen refuses its default knobs, and another one serves."""


def choose(
    op: Operator | str,
    target: Target | str = "native",
    logs: Iterable[Log | str | os.PathLike] = (),
    *,
    threads: int = 1,
    use_shipped: bool = True,
) -> Choice:
    """The kernel to build for an operator (or workload text) on a target.

    threads: on how many it will be called, mostly; it serves any number. Records tuned on as many
    are preferred.

    The best record of `logs`, read in their order, then of the logs that come with lpgen; where
    there is none, that of the operator without its epilogue (`borrowed`), which decides nearly all
    of the time; else the default knobs of the first template that applies. `seconds` is None in
    both cases. A record that no longer fits its template gives a RecordWarning and is skipped; of
    default knobs that are refused, as buffers get too large, a DefaultWarning tells.
    Raises UserError when no template applies.
    """
    op = parse(op) if isinstance(op, str) else op
    target = target if isinstance(target, Target) else Target.parse(target)
    found = [log if isinstance(log, Log) else Log(log) for log in logs]
    for like in dict.fromkeys((op, op.plain)):
        record = records.best(like, target, found, threads=threads, use_shipped=use_shipped)
        if record is None:
            continue
        template = templates.get(record.template)
        if like != op and template.applies(op, target) is not None:
            continue
        try:
            choice = choice_of(op, target, template, record.knobs)
            if like != op:
                return replace(choice, borrowed=True)
            return replace(choice, seconds=record.seconds, threads=record.threads)
        except ScheduleRefused as error:
            text = f"{op.name}: {record.template} refuses the knobs of its record: {error}"
            warnings.warn(text, RecordWarning, stacklevel=2)
    return _untuned(op, target)


def _untuned(op: Operator, target: Target) -> Choice:
    """The default knobs of the best template that takes them."""
    refused = []
    for template in in_order(op, target):
        try:
            choice = choice_of(op, target, template, template.default(op, target))
        except ScheduleRefused as error:
            refused.append(f"{template}: {error}")
            continue
        if refused:
            text = f"{op.name}: {template} serves, not {'; '.join(refused)}"
            warnings.warn(text, DefaultWarning, stacklevel=3)
        return choice
    raise UserError(f"{op.name}: no template can be built on {target.name}: {'; '.join(refused)}")


def choice_of(
    op: Operator, target: Target, template: Template, knobs: dict, seconds: float | None = None
) -> Choice:
    """The choice of a template with some knobs. Raises ScheduleRefused if it refuses them."""
    kernel = template.kernel(op, target, knobs)
    return Choice(op, target, template.name, knobs, kernel, seconds)


_ONLY_FITTING = ("depthwise", "group_dot")
"""Algorithms that serve only what is made for them."""

_FEW_ROWS = 16

_FEW_COLUMNS = 8
"""Output channels of a group that leave most of a tile register, or of a vector, empty."""


def best_template(op: Operator, target: Target) -> Template:
    """The first of `in_order`."""
    return in_order(op, target)[0]


def in_order(op: Operator, target: Target) -> list[Template]:
    """The templates that apply, first the one to use where nobody has tuned: what fits most
    operators best. Bit planes and tables win often, but not by default knobs: they are left to
    tuning.

    Raises UserError with reasons if none applies.
    """
    serving = templates.templates_for(op, target)
    if not serving:
        reasons = "; ".join(f"{t.name}: {why}" for t, why in templates.explain(op, target).items())
        raise UserError(f"{op.name}: no template applies on {target.name}: {reasons}")
    few = op.matrix.m <= _FEW_ROWS
    narrow = op.matrix.n <= _FEW_COLUMNS
    # A kernel of one tap reads every input once: a copy of it does not pay.
    taps = math.prod(op.w_shape[1:-1])
    order = [
        *_ONLY_FITTING,
        *(["grouped"] if narrow else []),
        *(["telescoped"] if few else []),
        "mma",
        *(["grouped", "dot"] if taps > 1 else ["dot", "grouped"]),
        "generic",
    ]

    def place(template: Template) -> int:
        known = template.algorithm in order
        return order.index(template.algorithm) if known else len(order)

    return sorted(serving, key=place)  # of equals the best family's
