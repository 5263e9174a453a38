"""Two columns of small codes in one byte: the kernels of lane_pack and their bound."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import LEVELS, assert_exact, template
from strategies import convs

from lpgen.ops import Dense, parse
from lpgen.schedules.common import lane_pack
from lpgen.schedules.x86.isa import isa_of
from lpgen.target import Target

NAMES = [name for name in LEVELS if name.endswith("/lane_pack")]
TEMPLATES = pytest.mark.parametrize("name", NAMES)
PAIRS = [("u1", "u1"), ("b1", "b1"), ("u3", "b1"), ("u1", "s2"), ("b1", "t2"), ("s2", "u1")]
BUILDS = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

AVX2, AVX512VNNI = (isa_of(Target.parse(name)) for name in ("avx2", "avx512vnni"))


@pytest.mark.matrix
@TEMPLATES
@pytest.mark.parametrize(("act", "weight"), PAIRS)
def test_formats(name, act, weight):
    chosen, target = template(name)
    # Several chunks and a rest, on both sides of the edges of tiles.
    for op in (Dense(13, 70, 701, act, weight), Dense(1, 33, 64, act, weight)):
        if not chosen.why_not(op, target):
            assert_exact(name, op)


CONVOLUTIONS = {
    "three taps": "h=6 w=6 ic=40 oc=33 kernel=3 pad=1",
    "stem": "h=9 w=9 ic=3 oc=10 kernel=7 stride=2 pad=3",
    "grouped": "h=5 w=5 ic=12 oc=15 kernel=3 pad=1 groups=3",
    "dilated": "h=7 w=6 ic=5 oc=6 kernel=3x2 dilation=2x3 pad=2x3",
}


@pytest.mark.matrix
@TEMPLATES
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_kinds_of_convolution(name, kind):
    for formats in ("act=u2 weight=b1", "act=b1 weight=u1"):
        assert_exact(name, parse(f"conv2d {CONVOLUTIONS[kind]} {formats}"))


@TEMPLATES
@BUILDS
@given(data=st.data())
def test_any_point_of_the_space(name, data):
    chosen, target = template(name)
    act, weight = data.draw(st.sampled_from(PAIRS))
    sizes = (st.integers(1, limit) for limit in (40, 200, 400))
    op = data.draw(st.one_of(convs(), st.builds(Dense, *sizes, st.just(act), st.just(weight))))
    op = replace(op, act=act, weight=weight)
    if chosen.why_not(op, target):
        return
    seed = data.draw(st.integers(0, 2**31))
    assert_exact(name, op, chosen.space(op, target).sample(np.random.default_rng(seed)))


@pytest.mark.parametrize(
    ("act", "weight"), [("u1", "u1"), ("u2", "u1"), ("u1", "u2"), ("u4", "b1")]
)
def test_chunks_are_as_long_as_the_sums_stay_apart(act, weight):
    op = Dense(8, 32, 1024, act, weight)
    largest, shift = lane_pack.largest_product(op), 8 - op.weight.bits
    for isa, per_step in ((AVX512VNNI, 4), (AVX2, 2)):
        length = lane_pack.chunk(op, isa)
        assert length * per_step * largest < 2**shift

        def lane(steps, per_step=per_step):
            return steps * per_step * largest * (1 + 2**shift)

        longer = (length + 1) * per_step * largest >= 2**shift
        assert longer or (isa is AVX2 and lane(length) < 2**15 <= lane(length + 1))


@pytest.mark.parametrize("name", ["avx2/lane_pack", "avx512vnni/lane_pack"])
@pytest.mark.parametrize("k", [123, 124, 125, 252, 504, 4096])
def test_the_largest_sums_are_exact_around_the_ends_of_chunks(name, k):
    assert_exact(name, Dense(2, 40, k, act="u1", weight="u1"))


def test_sums_that_overlap_at_once_are_refused():
    chosen, target = template("avx512vnni/lane_pack")
    assert "overlap after 2 steps" in chosen.why_not(Dense(8, 8, 64, "u4", "u1"), target)
    assert "two such codes" in chosen.why_not(Dense(8, 8, 64, "u1", "s5"), target)
    assert "int8" in chosen.why_not(Dense(8, 8, 64, "u8", "u1"), target)
    assert chosen.why_not(Dense(8, 8, 64, "u3", "b1"), target) is None
