"""Work shared among any number of threads: every tile is computed, and by one of them."""

from collections.abc import Container

import numpy as np
import pytest
from kernels import LEVELS, runs_here, template_of

from lpgen import runtime
from lpgen.build import build
from lpgen.ops import parse
from lpgen.records.choose import choice_of
from lpgen.target import Target, cpu_features

THREADS = (1, 2, 3, 7, 64)

# For each algorithm an operator that it serves; `{}` makes those of a target's templates differ.
OPERATORS = {
    "generic": "dense m=19 n=4{} k=70 act=u8 weight=s3",
    "dot": "conv2d h=9 w=10 ic=24 oc=5{} kernel=3 pad=1 act=u8 weight=s4 out=u8 scale=channel",
    "lut_sum": "conv2d h=9 w=10 ic=16 oc=7{} kernel=3 pad=1 act=u2 weight=s2",
    "lut_weight": "dense m=130 n=6{} k=96 act=u1 weight=s3",
    "mma": "conv2d h=9 w=10 ic=24 oc=7{} kernel=3 pad=1 act=u8 weight=s4",
    "depthwise": "conv2d n=2 h=13 w=12 ic=3{} oc=3{} groups=3{} kernel=3 pad=1 act=u8 weight=s8",
    "grouped_conv": "conv2d h=12 w=13 ic=64 oc=64 groups=8 kernel=3 pad={} act=u8 weight=s8",
    "telescoped": "dense m=11 n=20{} k=130 act=u8 weight=s3",
    "lut_product": "dense m=23 n=9{} k=64 act=u2 weight=s2",
    "bitserial": "conv2d h=7 w=9 ic=40 oc=4{} kernel=3 pad=1 act=u2 weight=b1",
    "lane_pack": "dense m=30 n=15{} k=64 act=u2 weight=t2",
    "winograd": "conv2d n=2 h=13 w=12 ic=24 oc=4{} kernel=3 pad=1 act=u3 weight=s3",
    "bit_layers": "dense m=9 n=12{} k=96 act=s8 weight=u8 layers=1..8 scale=group32 out=f32",
    "blockwise_dot": "dense m=9 n=12{} k=96 act=u8 weight=s4 scale=group32 out=f32",
}


TARGETS = sorted(set(LEVELS.values()))


def _third() -> set[str]:
    """Each algorithm at a third of the levels that this CPU has, others for each."""
    found = set()
    for number, algorithm in enumerate(OPERATORS):
        levels = [n for n in LEVELS if n.endswith(f"/{algorithm}") and runs_here(n)]
        found |= {*levels[number % min(3, max(1, len(levels))) :: 3]}
    return found


def _choices(level: str, names: Container[str]) -> list:
    """A random point of every template at a level that is among `names`, each of another
    operator."""
    target, rng, found = Target.parse(level), np.random.default_rng(0), []
    for number, name in enumerate(sorted(n for n, needed in LEVELS.items() if needed == level)):
        if name not in names:
            continue
        template, _ = template_of(name)
        op = parse(OPERATORS[template.algorithm].replace("{}", str(number % 3)))
        knobs = template.space(op, target).sample(rng)
        found.append(choice_of(op, target, template, knobs))
    return found


@pytest.mark.parametrize("level", TARGETS)
def test_templates_on_any_number_of_threads(tmp_path, level):
    _any_number_of_threads(tmp_path, level, _third())


@pytest.mark.nightly
@pytest.mark.parametrize("level", TARGETS)
def test_every_template_on_any_number_of_threads(tmp_path, level):
    _any_number_of_threads(tmp_path, level, LEVELS)


def _any_number_of_threads(tmp_path, level: str, names: Container[str]) -> None:
    missing = Target.parse(level).missing_on(cpu_features())
    if missing:
        pytest.skip(f"this CPU lacks {', '.join(missing)}")
    choices = _choices(level, names)
    if not choices:
        pytest.skip("other levels today")
    library = runtime.load(build(choices, tmp_path / "lib.so"))
    rng = np.random.default_rng(1)
    for choice in choices:
        op, kernel = choice.op, library[choice.op.name]
        example = op.example(rng)
        packed = kernel.pack_weights(example.weights, **example.parameters)
        expected = op.reference(**example.given)
        assert kernel.variant["pieces"] > 1
        for threads in THREADS:
            y = np.full(op.y_shape, 99, op.y_dtype)
            kernel(**example.inputs, packed=packed, out=y, threads=threads)
            what = f"{op} {choice.template} {choice.knobs} threads={threads}"
            np.testing.assert_array_equal(y, expected, what)
