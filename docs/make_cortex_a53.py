"""The study of the Cortex-A53 (docs/cortex_a53.md): its records, which notebook 03 reads, its table
and its figure.

    python docs/make_cortex_a53.py [--trials 6] [--layers WORD] [--only-page]

models candidates of ResNet-18's convolutions for it: w1a1, w1a2, w2a2, and the baseline, products
of int16 summed in int32 (`smlal`), whose tiles and blocks are chosen in the same way. One line for
each candidate goes to docs/performance/cortex-a53.jsonl; what is there already is left alone.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import geometric_mean

from lpgen import cost, templates
from lpgen.ops import Operator, formats_of_bits
from lpgen.ops.suites import layers
from lpgen.records import Log, Record
from lpgen.space import Knobs
from lpgen.target import Target
from lpgen.tune import offline
from lpgen.tune.messages import Candidate

DOCS = Path(__file__).parent
LOG, PAGE = DOCS / "performance" / "cortex-a53.jsonl", DOCS / "cortex_a53.md"
FIGURE = DOCS / "figures" / "cortex_a53.png"
MADE = re.compile(r"(?<=<!-- made by docs/make_cortex_a53.py -->\n).*(?=<!-- end -->)", re.DOTALL)
TARGET = Target.parse("cortex-a53")
BASELINE, BITS = "w8a8", ("w1a1", "w1a2", "w2a2")
TILES = tuple({"rows": r, "vectors": v, "unroll": 2} for r, v in ((4, 4), (4, 5), (8, 2)))
"""Tiles of the baseline that leave registers for the operands of the next step."""


def operators(bits: str) -> Iterator[tuple[str, Operator]]:
    """(layer, operator) of the convolutions, the baseline's of 8-bit values."""
    for layer, op in layers("resnet18", *formats_of_bits(bits)):
        if op.kind == "conv2d":
            yield layer, op


def modelled(op: Operator, bits: str, count: int) -> Iterator[offline.Modelled]:
    """What is modelled, of the baseline as of all others."""
    if bits != BASELINE:
        serving = templates.templates_for(op, TARGET)
        return offline.search(op, TARGET, serving, count)
    found, knobs = cost.by_tile(_words(op, {}))[:count], templates.get("arm/dot").space(op, TARGET)
    for tile in TILES:
        if all(choice in knobs.knobs[name] for name, choice in tile.items()):
            found += _words(op, tile)[:1]
    return offline.model(op, TARGET, (Candidate(c.template, c.knobs) for c in found))


def _words(op: Operator, tile: Knobs) -> list[cost.Candidate]:
    """Candidates of the baseline, the best first."""
    dot = templates.get("arm/dot")
    return cost.candidates(op, TARGET, [dot], chosen={"step": "words"} | tile)


def model(log: Log, trials: int, word: str) -> None:
    """Add what the log has not got."""
    done = {record.workload for record in log.modelled()}
    every = zip(
        *([(bits, *one) for one in operators(bits)] for bits in (BASELINE, *BITS)), strict=True
    )
    for bits, layer, op in itertools.chain(*every):
        if op.name in done or word not in layer:
            continue
        found = [*modelled(op, bits, trials)]
        for one in found:
            if one.failed:
                print(f"{layer}: {one.candidate}: {one.failed}", file=sys.stderr)
        for record in offline.records_of(op, TARGET, found):
            log.append(record)
        best = min((m for m in found if m.cycles), key=lambda m: m.cycles)
        speed = f"{op.ops / 2 / best.cycles:.1f} MAC/cycle, {best.bound:.0%} of its bound"
        print(f"{bits} {layer}: {speed}, {best.candidate}", flush=True)


def best(log: Log) -> dict[str, dict[str, tuple[Operator, Record]]]:
    """bits -> layer -> (operator, record of fewest cycles)."""
    found: dict[str, Record] = {}
    for record in sorted(log.modelled(), key=lambda record: -record.cycles):
        found[record.workload] = record
    return {
        bits: {layer: (op, found[op.name]) for layer, op in operators(bits) if op.name in found}
        for bits in (BASELINE, *BITS)
    }


def table(found: dict) -> str:
    """Markdown: cycles of int16 over those of each pair, and the bounds of the loops."""
    lines = ["| layer | int16, MAC/cycle | " + " | ".join(BITS) + " |", "|---|--:|--:|--:|--:|"]
    whole, threes = [layer for layer in found[BASELINE] if all(layer in found[b] for b in BITS)], []
    for layer in whole:
        op, base = found[BASELINE][layer]
        own = [found[bits][layer][1] for bits in BITS]
        ratios = [base.cycles / record.cycles for record in own]
        threes += [(base, *own)] if " 3x3 " in layer else []
        cells = [f"{r:.1f} ({record.bound:.0%})" for r, record in zip(ratios, own, strict=True)]
        speed = f"{op.ops / 2 / base.cycles:.2f} ({base.bound:.0%})"
        lines.append(f"| {layer} | {speed} | " + " | ".join(cells) + " |")
    for title, weigh in (("3x3, mean", False), ("3x3 without waits, mean", True)):
        means = [f"**{mean_of(threes, column, weigh):.1f}**" for column in range(1, len(BITS) + 1)]
        lines.append(f"| {title} | | " + " | ".join(means) + " |")
    return "\n".join(lines) + "\n"


def mean_of(rows: Sequence[tuple[Record, ...]], column: int, bounds: bool) -> float:
    """The geometric mean of ratios; bounds: as if no loop ever waited."""

    def cycles(record: Record) -> float:
        return record.cycles * (record.bound if bounds else 1)

    return geometric_mean(cycles(row[0]) / cycles(row[column]) for row in rows)


def draw(found: dict) -> None:
    """Save the figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    names = [layer for layer in found[BASELINE] if all(layer in found[bits] for bits in BITS)]
    for i, bits in enumerate(BITS):
        heights = [found[BASELINE][n][1].cycles / found[bits][n][1].cycles for n in names]
        axes.bar([place + 0.27 * (i - 1) for place in range(len(names))], heights, 0.25, label=bits)
    axes.axhline(16, color="0.4", lw=1)
    axes.text(-0.5, 16, "published: up to 16", fontsize=8, va="bottom")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    axes.set(ylabel="cycles of int16 / cycles", title="ResNet-18 on a Cortex-A53, modelled")
    axes.set_ylim(0, 20)
    axes.legend(ncols=len(BITS))
    figure.savefig(FIGURE, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description="Model ResNet-18 on a Cortex-A53.")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--layers", default="", help="those whose names hold this [all]")
    parser.add_argument("--only-page", action="store_true", help="from the records there are")
    given, log = parser.parse_args(), Log(LOG)
    if not given.only_page:
        model(log, given.trials, given.layers)
    found = best(log)
    PAGE.write_text(MADE.sub(lambda _: table(found), PAGE.read_text()))
    draw(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
