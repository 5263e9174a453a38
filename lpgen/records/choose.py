"""Which kernel an operator gets in a library: what tuning found, here or on a lesser CPU, or what
the cost model expects to be fast."""

import math
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace

from lpgen import cost, records, templates
from lpgen.build.choice import Choice
from lpgen.cost import Candidate
from lpgen.errors import ScheduleRefused, UserError
from lpgen.ops import Operator, parse
from lpgen.records import Log, RecordWarning
from lpgen.target import Target
from lpgen.templates import Template

PREFERRED, KNOWN, TRIALS = 1.15, 1.08, 64
"""How many times faster than another target's record the model has to expect something else, where
the record is the best of so many candidates: one of fewer is nearer to the model's own choice.
KNOWN: where candidates of the target itself taught the model."""


class DefaultWarning(UserWarning):
    """A template that would have been chosen refuses its default knobs, and another one serves."""


def choose(
    op: Operator | str,
    target: Target | str = "native",
    logs: Iterable[Log | str | os.PathLike] = (),
    *,
    threads: int = 1,
    use_shipped: bool = True,
    lenders: Iterable[Target] | None = None,
) -> Choice:
    """The kernel to build for an operator (or workload text) on a target.

    The best record of `logs`, read in their order, then of the logs that come with lpgen. Where
    they hold none of the target, that of the nearest other target whose code runs there; of
    each target also the record of the operator without its epilogue (`borrowed`), which decides
    nearly all of the time. Another target's record stands where the cost model expects nothing
    clearly faster: what that target's tuning did not have to choose from, or what only pays here.
    What the static model ranked for the target (`lpgen tune --offline`) counts where nobody
    measured. Without any record the model chooses. `Choice.origin` says which it was; `seconds`
    is None but for a record of the target and the operator itself. A record that no longer fits
    its template gives a RecordWarning and is skipped; of a template that the model prefers, and
    that refuses its knobs, as buffers get too large, a DefaultWarning tells.

    threads: on how many it will be called, mostly; it serves any number. Records tuned on as many
        are preferred.
    lenders: whose records are used, nearest first [the target and `Target.lenders`]; with none the
        model chooses.
    Raises UserError when no template applies.
    """
    op = parse(op) if isinstance(op, str) else op
    target = target if isinstance(target, Target) else Target.parse(target)
    found = [log if isinstance(log, Log) else Log(log) for log in logs]
    lenders = (target, *target.lenders()) if lenders is None else lenders
    recorded = _recorded(op, target, lenders, found, threads, use_shipped)
    choice, trials = next(recorded, (None, 0))
    if (choice is None or choice.lender) and target in lenders:
        if modelled := _modelled(op, target, found, use_shipped):
            return modelled
    if choice is not None and choice.lender is None:
        return choice
    preferred = KNOWN if target.name in cost.asked().own else PREFERRED
    return _expected(op, target, choice, preferred ** min(1, trials / TRIALS))


def _recorded(
    op: Operator,
    target: Target,
    lenders: Iterable[Target],
    logs: list[Log],
    threads: int,
    use_shipped: bool,
) -> Iterator[tuple[Choice, int]]:
    """The choices that records name, each with the trials it is the best of, the nearest target's
    first."""
    for lender in lenders:
        for like in _alike(op):
            record = records.best(
                like, target, logs, threads=threads, use_shipped=use_shipped, lender=lender
            )
            if record is None:
                continue
            template = templates.get(record.template)
            if like != op and template.why_not(op, target) is not None:
                continue
            try:
                choice = choice_of(op, target, template, record.knobs)
            except ScheduleRefused as error:
                text = f"{op.name}: {record.template} refuses the knobs of its record: {error}"
                warnings.warn(text, RecordWarning, stacklevel=3)
                continue
            if like == op and lender is target:
                choice = replace(choice, seconds=record.seconds, threads=record.threads)
                yield choice, record.trials
                continue
            name = None if lender is target else lender.name
            borrowed = like == like.plain and op != op.plain
            yield replace(choice, borrowed=borrowed, lender=name), record.trials


def lent(
    op: Operator, target: Target, logs: Iterable[Log] = (), threads: int = 1
) -> list[tuple[Template, dict]]:
    """Templates with knobs that records of other targets, or of the operator without its epilogue,
    name for it, the nearest first. Records that do not fit are skipped without a word."""
    serving, lenders = templates.templates_for(op, target), (target, *target.lenders())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordWarning)
        found = [*_recorded(op, target, lenders, list(logs), threads, True)]
    others = (choice for choice, _ in found if choice.borrowed or choice.lender)
    return [point for choice in others for point in _lent(op, target, choice, serving)]


def _modelled(op: Operator, target: Target, logs: list[Log], use_shipped: bool) -> Choice | None:
    """The choice of fewest cycles that the static model named for the target."""
    for record in records.modelled(op, target, logs, use_shipped=use_shipped):
        try:
            choice = choice_of(op, target, templates.get(record.template), record.knobs)
        except ScheduleRefused:
            continue
        return replace(choice, cycles=record.cycles)
    return None


def _alike(op: Operator) -> list[Operator]:
    """The operators whose records serve this one, the nearest first: itself, those of one image
    where a call has a range of them, each without the epilogue."""
    likes = [op, op.with_rows(1)] if op.range and op.kind == "conv2d" else [op]
    return list(dict.fromkeys([*likes, *(like.plain for like in likes)]))


def _expected(op: Operator, target: Target, recorded: Choice | None, preferred: float) -> Choice:
    """What the cost model expects to be fast. recorded: the choice that another target's record
    names, which stands, in the best template of its algorithm, unless something else is
    `preferred` times as fast."""
    ranked = ranking(op, target)
    if recorded is not None:
        lent = _lent(op, target, recorded, [candidate.template for candidate in ranked])
        best = cost.evaluate(op, target, lent)
        if best is not None and ranked[0].cost + math.log(preferred) > best.cost:
            if best.template.name == recorded.template:
                return recorded
            choice = choice_of(op, target, best.template, best.knobs)
            return replace(choice, borrowed=recorded.borrowed, lender=recorded.lender)
    return _first_built(op, target, ranked)


def _first_built(op: Operator, target: Target, ranked: list[Candidate]) -> Choice:
    """The cheapest candidate whose template takes its knobs; of each template the first counts, and
    the portable ones, which are not ranked beside others, come last."""
    firsts = {c.template: c.knobs for c in reversed(ranked)}
    firsts = dict(sorted(firsts.items(), key=lambda item: _place(item[0], ranked)))
    serving = templates.templates_for(op, target)
    refused = []
    for template in dict.fromkeys((*firsts, *serving)):
        knobs = firsts.get(template) or template.default(op, target)
        try:
            choice = choice_of(op, target, template, knobs)
        except ScheduleRefused as error:
            refused.append(f"{template}: {error}")
            continue
        if refused:
            text = f"{op.name}: {template} serves, not {'; '.join(refused)}"
            warnings.warn(text, DefaultWarning, stacklevel=4)
        return choice
    raise UserError(f"{op.name}: no template can be built on {target.name}: {'; '.join(refused)}")


def _place(template: Template, ranked: list[Candidate]) -> int:
    return next(i for i, candidate in enumerate(ranked) if candidate.template == template)


def _lent(
    op: Operator, target: Target, recorded: Choice, serving: Iterable[Template]
) -> list[tuple[Template, dict]]:
    """A record's knobs in its template, and in that of the target's best family for the algorithm,
    if they are knobs of that too."""
    template = templates.get(recorded.template)
    alike = [t for t in dict.fromkeys(serving) if t.algorithm == template.algorithm]
    knobs = dict(recorded.knobs)
    return [(t, knobs) for t in {template, *alike} if knobs in t.space(op, target)]


def choice_of(
    op: Operator, target: Target, template: Template, knobs: dict, seconds: float | None = None
) -> Choice:
    """The choice of a template with some knobs. Raises ScheduleRefused if it refuses them."""
    kernel = template.kernel(op, target, knobs)
    return Choice(op, target, template.name, knobs, kernel, seconds)


def ranking(op: Operator, target: Target) -> list[Candidate]:
    """What the cost model likes best of the templates that serve, cheapest first.

    Raises UserError with reasons if none applies.
    """
    serving = templates.templates_for(op, target)
    if not serving:
        reasons = templates.explain(op, target)
        raise UserError(templates.no_template(op, target, reasons))
    return cost.candidates(op, target, serving)
