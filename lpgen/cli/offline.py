"""What `lpgen tune` does with the static model: --offline and --judge-model."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import TYPE_CHECKING

from lpgen.cli import output

if TYPE_CHECKING:
    from lpgen.ops import Operator
    from lpgen.records import Log
    from lpgen.target import Target
    from lpgen.templates import Template

SPEARMAN, REGRET = 0.8, 0.05
"""From where on a ranking serves."""


def rank(
    labels: dict[Operator, str],
    target: Target,
    log: Log,
    trials: int,
    among: Iterable[str] | None,
    as_json: bool,
) -> None:
    """Model candidates of each operator, log them, and print the best."""
    from lpgen.build import mca
    from lpgen.tune import offline

    mca.find()
    rows = []
    for op, label in labels.items():
        modelled = [*offline.search(op, target, _serving(op, target, among), trials)]
        kept = offline.records_of(op, target, modelled)
        for record in kept:
            log.append(record)
        failed = [m.failed for m in modelled if m.failed]
        if failed:
            output.note(f"{label}: {len(failed)} of {len(modelled)} not modelled: {failed[0]}")
        if not kept:
            output.note(f"{label}: nothing could be modelled")
            continue
        best = kept[-1]
        if as_json:
            found = {"modelled": best.cycles, "bound": best.bound, "knobs": best.knobs}
            output.print_json({"workload": op.name, "template": best.template} | found)
        speed = f"{op.ops_timed / 2 / best.cycles:.1f}"
        knobs = output.knobs_text(best.knobs)
        numbers = (f"{best.cycles:.4g}", speed, output.percent(best.bound), str(len(kept)))
        rows.append((label, best.template, *numbers, knobs))
    if not as_json and rows:
        names = ("layer", "template", ">cycles modelled", ">MAC/cycle", ">of bound", ">candidates")
        output.print_table(names, rows, wide="knobs")
    output.note(f"records, modelled for {target}: {log.path}")


def _serving(op: Operator, target: Target, among: Iterable[str] | None) -> list[Template]:
    from lpgen import templates

    wanted = [templates.get(name) for name in among] if among else None
    return [t for t in templates.templates_for(op, target) if wanted is None or t in wanted]


def judge(labels: dict[Operator, str], target: Target, log: Log, most: int, as_json: bool) -> None:
    """Print how well the static model ranks what the log holds, and medians of each template."""
    from lpgen.tune import judging

    found = [(op, judged) for op in labels for judged in judging.judge(op, target, log, most)]
    for op, judged in found:
        if as_json:
            output.print_json({"workload": op.name} | judged._asdict())
    if as_json:
        return
    rows = [
        (
            *(labels[op], j.template, str(j.candidates), f"{j.spearman:.2f}"),
            *(f"{j.repeat:.2f}", output.percent(j.ordered) or "", output.percent(j.regret)),
        )
        for op, j in found
    ]
    names = ("layer", "template", ">candidates", ">spearman", ">repeat", ">ordered")
    names += (">regret of its top 5",)
    output.print_table(names, rows)
    for template in dict.fromkeys(judged.template for _, judged in found):
        own = [judged for _, judged in found if judged.template == template]
        ranks, regrets = median(j.spearman for j in own), median(j.regret for j in own)
        verdict = "serves" if ranks >= SPEARMAN and regrets <= REGRET else "does not serve"
        output.note(
            f"{template}: Spearman {ranks:.2f}, regret {output.percent(regrets)} (medians of "
            f"{output.count(len(own), 'layer')}): {verdict} (from {SPEARMAN} and up to 5 %)"
        )
    if not found:
        output.note(f"no template has {judging.FEWEST} candidates that were measured")
