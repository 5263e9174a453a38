"""The study of the Cortex-A53 (docs/cortex_a53.md): its records, which notebook 03 reads.

    python docs/make_cortex_a53.py [--trials 6] [--layers WORD]

models candidates of ResNet-18's convolutions for it: w1a1, w1a2, w2a2, and the baseline, products of
int16 summed in int32 (`smlal`), whose tiles and blocks are chosen in the same way. One line for each
candidate goes to docs/performance/cortex-a53.jsonl; what is there already is left alone.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from lpgen import cost, templates
from lpgen.ops import Operator, formats_of_bits
from lpgen.ops.suites import layers
from lpgen.records import Log
from lpgen.target import Target
from lpgen.tune import offline
from lpgen.tune.messages import Candidate

LOG = Path(__file__).parent / "performance" / "cortex-a53.jsonl"
TARGET = Target.parse("cortex-a53")
BASELINE, BITS = "w8a8", ("w1a1", "w1a2", "w2a2")
WORDS = {"step": "words"}


def operators() -> Iterator[tuple[str, str, Operator]]:
    """(layer, bits, operator) of the convolutions, the baseline's of 8-bit values."""
    for bits in (BASELINE, *BITS):
        for layer, op in layers("resnet18", *formats_of_bits(bits)):
            if op.kind == "conv2d":
                yield layer, bits, op


def candidates(op: Operator, bits: str, count: int) -> list[Candidate]:
    """What is modelled."""
    if bits == BASELINE:
        dot = templates.get("arm/dot")
        found = cost.diverse(cost.candidates(op, TARGET, [dot], chosen=WORDS), count)
        return [Candidate(c.template, c.knobs) for c in found]
    return offline.candidates(op, TARGET, templates.templates_for(op, TARGET), count)


def main() -> int:
    parser = argparse.ArgumentParser(description="Model ResNet-18 on a Cortex-A53.")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--layers", default="", help="those whose names hold this [all]")
    given = parser.parse_args()
    log = Log(LOG)
    done = {record.workload for record in log.modelled()}
    for layer, bits, op in operators():
        if op.name in done or given.layers not in layer:
            continue
        modelled = [*offline.model(op, TARGET, candidates(op, bits, given.trials))]
        for one in modelled:
            if one.failed:
                print(f"{layer}: {one.candidate}: {one.failed}", file=sys.stderr)
        for record in offline.records_of(op, TARGET, modelled):
            log.append(record)
        best = min((m for m in modelled if m.cycles), key=lambda m: m.cycles)
        speed = op.ops / 2 / best.cycles
        print(f"{bits} {layer}: {speed:.1f} MAC/cycle, {best.bound:.0%} {best.candidate}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
