"""Two columns of small codes in one byte: the kernels of lane_pack and their bound."""

import pytest
from kernels import assert_exact, template

from lpgen.ops import Dense
from lpgen.schedules.common import lane_pack
from lpgen.schedules.x86.isa import isa_of
from lpgen.target import Target

AVX2, AVX512VNNI = (isa_of(Target.parse(name)) for name in ("avx2", "avx512vnni"))


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
