"""What the search for an operator's kernel begins with, before anything of it is measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lpgen import cost, records
from lpgen.ops import Operator
from lpgen.records import Record
from lpgen.records.choose import lent
from lpgen.templates import Template
from lpgen.tune.guesses import Guesses
from lpgen.tune.messages import Candidate
from lpgen.tune.settings import Settings

_FOR_EACH = 4
"""Trials for each template from which on all have a turn; with fewer, those without hope have none.
"""

_KNOWN_WINNERS = 3
_LENT = 2
_GUESSES = 12
_MODELLED = 5


@dataclass(frozen=True)
class Opening:
    """The templates that compete, and the candidates that the search is given.

    named: what is tried before all others, `modelled` (keys) of them because the static model
    ranked them; guesses: what proposes those that come next; winners: of this target's records.
    """

    templates: list[Template]
    named: list[Candidate]
    modelled: frozenset[tuple]
    guesses: Guesses | None
    winners: list[Candidate]


def opening(settings: Settings, op: Operator, serving: Sequence[Template]) -> Opening:
    """What the tuning of `op` by the templates `serving` begins with.

    The strategies "random" and "exhaustive" have winners of records at most.
    """
    asks = settings.strategy not in ("random", "exhaustive")
    counted = [template for template in serving if template.counted]
    ranked = cost.candidates(op, settings.target, counted) if asks else []
    modelled = _modelled(settings, op, serving) if asks else []
    named = [*modelled, *(_lent(settings, op, serving) if asks else [])]
    competing = list(serving)
    if settings.trials[op] < _FOR_EACH * len(serving) and settings.strategy == "model":
        hopeful = {*cost.promising(ranked), *(c.template for c in named)}
        # What an earlier run measured, with more trials perhaps, may be the winner.
        measured = {record.template for record in settings.known_of(op)}
        competing = [t for t in serving if t in hopeful or t.name in measured or not t.counted]
    return Opening(
        templates=competing,
        named=named,
        modelled=frozenset(candidate.key for candidate in modelled),
        guesses=_guesses(settings, op, ranked, named, competing) if ranked else None,
        winners=_winners(settings, op, competing),
    )


def candidates(known: Iterable[Record], templates: Iterable[Template]) -> list[Candidate]:
    """The candidates of the records whose templates are among these."""
    named = {template.name: template for template in templates}
    return [Candidate(named[r.template], r.knobs) for r in known if r.template in named]


def _modelled(settings: Settings, op: Operator, serving: Sequence[Template]) -> list[Candidate]:
    """What the static model ranked first for this target."""
    known = candidates(records.modelled(op, settings.target, settings.logs), serving)
    return list({c.key: c for c in known}.values())[:_MODELLED]


def _lent(settings: Settings, op: Operator, serving: Sequence[Template]) -> list[Candidate]:
    """What records of other targets lend."""
    points = lent(op, settings.target, settings.logs, settings.threads)
    return [Candidate(*point) for point in points if point[0] in serving][:_LENT]


def _guesses(
    settings: Settings,
    op: Operator,
    ranked: list[cost.Candidate],
    named: list[Candidate],
    competing: list[Template],
) -> Guesses:
    """What the cost model likes best: the first trials, but for an eighth of them."""
    trials = settings.trials[op]
    priced = [cost.evaluate(op, settings.target, [(c.template, c.knobs)]) for c in named]
    known = [c for c in (*ranked, *priced) if c and c.template in competing]
    return Guesses(known, min(max(1, trials - trials // 8), _GUESSES))


def _winners(settings: Settings, op: Operator, competing: list[Template]) -> list[Candidate]:
    """The winners of this target's records that are fastest."""
    ranked = records.ranked(op, settings.target, settings.logs, threads=settings.threads)
    return candidates([r for _, r in ranked if r.best], competing)[:_KNOWN_WINNERS]
