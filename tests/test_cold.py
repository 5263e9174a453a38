"""Kernels of networks, whose weights are out of the L2 cache."""

import math

import pytest

from lpgen.ops import parse
from lpgen.records import Log, Record
from lpgen.records.choose import choice_of, choose, ranking
from lpgen.records.cold import MORE, asking_ahead, with_cold_weights
from lpgen.target import Target

SHAPE = "conv2d h=7 w=7 ic=512 oc=512 kernel=3 pad=1"


@pytest.mark.parametrize(
    ("formats", "fewer"), [("act=u4 weight=s4", True), ("act=u8 weight=s8", False)]
)
def test_what_stores_much_more_than_the_codes_gives_way(formats, fewer):
    warm = choose(f"{SHAPE} {formats} out=u4 scale=channel", "icelake")
    cold = with_cold_weights(warm)
    codes = math.prod(warm.op.w_shape) * warm.op.weight.bits // 8
    assert (warm.kernel.packed_bytes > codes + MORE) == fewer
    assert (cold.kernel.packed_bytes < warm.kernel.packed_bytes) == fewer


@pytest.mark.parametrize(("n", "ahead"), [(1536, 4096), (64, 0)])
def test_many_weights_are_asked_for_in_advance(n, ahead):
    warm = choose(f"dense m=16 n={n} k=384 act=s8 weight=s8", "icelake", use_shipped=False)
    cold = with_cold_weights(warm)
    assert (warm.knobs["prefetch"], cold.knobs["prefetch"]) == (0, ahead)
    assert {**cold.knobs, "prefetch": 0} == warm.knobs


def test_what_was_measured_says_more_than_what_is_expected(tmp_path):
    """The others are slower than the model has them: the first template stays."""
    log = Log(tmp_path / "log.jsonl")
    op = parse(f"{SHAPE} act=u4 weight=s4 out=u4 scale=channel")
    warm = choose(op, "icelake")
    assert with_cold_weights(warm).template != warm.template
    given = {"workload": op.name, "target": "icelake"}
    first = dict(warm.knobs)
    log.append(Record(template=warm.template, knobs=first, seconds=3e-4, best=True, **given))
    slow = {
        candidate.template.name: dict(candidate.knobs) for candidate in ranking(op, warm.target)
    }
    for name in slow.keys() - {warm.template}:
        log.append(Record(template=name, knobs=slow[name], seconds=9e-4, **given))
    assert with_cold_weights(choose(op, "icelake", [log]), [log]).template == warm.template


def test_winograd_reads_all_weights_once():
    """Blocks of rows read them again and again: from the cache that costs nothing."""
    op = parse(
        "conv2d h=14 w=14 ic=256 oc=256 kernel=3 pad=1 act=u4 weight=s4 out=u4 scale=channel"
    )
    target = Target.parse("zen4")
    again = next(c for c in ranking(op, target) if c.knobs.get("block") == 1)
    assert again.template.name == "x86/winograd"
    warm = choice_of(op, target, again.template, again.knobs)
    cold = asking_ahead(warm)
    assert cold.knobs == {**warm.knobs, "block": 0}
