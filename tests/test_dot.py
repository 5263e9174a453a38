"""dot, mma and generic: the instructions that they are chosen for, and what is refused."""

import pytest
from kernels import LEVELS, assert_exact, template

from lpgen.errors import ScheduleRefused
from lpgen.ops import Dense, parse

NAMES = [name for name in LEVELS if name.rpartition("/")[2] in ("dot", "mma", "lut_sum")]


@pytest.mark.parametrize("name", ["sse4/dot", "avx2/dot", "avx512vnni/dot", "amx/mma"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_code_books_are_looked_up_by_a_shuffle(name, bits):
    from lpgen.build.lower import jit_module

    chosen, target = template(name)
    values = ",".join(str(value) for value in range(-8, -8 + 2**bits))
    for m in (1, 40):  # weights unpacked in registers, and per panel
        op = Dense(m, 64, 64, act="u4", weight=f"c{bits}:{values}")
        if chosen.why_not(op, target):
            continue
        knobs = chosen.default(op, target)
        asm = jit_module(chosen.kernel(op, target, knobs), target).inspect_source("asm")
        assert "pshufb" in asm
        assert "pcmpeqb" not in asm


@pytest.mark.parametrize("name", ["zen4/dot", "avx2/dot"])
@pytest.mark.parametrize("kernel", ["7x7", "3x5", "8x2", "9x3"])
@pytest.mark.parametrize("channels", [1, 3, 4, 8])
def test_folded_rows_of_the_kernel_are_interleaved(name, kernel, channels):
    """By vectors, where an instruction chooses 64 bytes out of two and the rows fit these."""
    chosen, target = template(name)
    shape = f"conv2d n=2 h=11 w=13 ic={channels} oc=16 kernel={kernel} stride=2 pad=1x2x0x3"
    op = parse(f"{shape} act=u4 weight=s4 zero_act=3")
    space = chosen.space(op, target).narrowed({"left": "folded"})
    every = {knobs["step"]: knobs for knobs in space.enumerate()}
    for knobs in list(every.values())[-1:]:
        assert_exact(name, op, knobs)


@pytest.mark.parametrize("channels", [1, 5, 16, 33])
def test_depthwise_has_a_kernel(channels):
    text = f"conv2d h=7 w=6 ic={channels} oc={channels} kernel=3 pad=1 groups={channels}"
    for formats in ("act=u8 weight=s8", "act=u4 weight=b1"):
        assert_exact("generic/generic", parse(f"{text} {formats}"))


@pytest.mark.parametrize("name", ["avx2/dot", "avx512vnni/dot"])
@pytest.mark.parametrize("weight", ["s8", "s4", "b1"])
def test_streamed_weights_are_prefetched(name, weight):
    from lpgen.build.lower import jit_module

    chosen, target = template(name)
    op = Dense(1, 64, 256, act="u4", weight=weight)
    streamed = (p for p in chosen.space(op, target).enumerate() if p["prefetch"])
    knobs = next(streamed)
    assert_exact(name, op, knobs)
    asm = jit_module(chosen.kernel(op, target, knobs), target).inspect_source("asm")
    assert "prefetcht0" in asm


@pytest.mark.parametrize(
    ("name", "op", "asked"),
    [
        ("avx512vnni/dot", Dense(24, 40, 1024, act="u8", weight="s8"), True),
        ("avx512vnni/dot", Dense(24, 70, 4096, act="u8", weight="s3"), True),  # two planes
        ("avx2/dot", parse("conv2d h=5 w=9 ic=64 oc=72 kernel=3 pad=1 act=u8 weight=s8"), True),
        ("avx2/dot", Dense(24, 40, 64, act="u8", weight="s8"), False),  # in the L1 cache
        ("avx2/dot", Dense(1, 40, 1024, act="u8", weight="s8"), False),  # one tile of rows
        (
            "avx512vnni/winograd",
            parse("conv2d h=9 w=7 ic=70 oc=40 kernel=3 pad=1 act=u8 weight=s8"),
            True,
        ),
    ],
)
def test_the_next_panel_is_asked_for(name, op, asked):
    from lpgen.build.lower import jit_module

    chosen, target = template(name)
    space = chosen.space(op, target)
    fixed = {"prefetch": 0, "left": "direct", "expand": "register"}
    fixed = {knob: choice for knob, choice in fixed.items() if choice in space.knobs.get(knob, ())}
    points = iter(space.narrowed(fixed))
    knobs = next(p for p in points if not asked or (p["rows"] <= 8 and p.get("inner") != "mn"))
    assert_exact(name, op, knobs)
    asm = jit_module(chosen.kernel(op, target, knobs), target).inspect_source("asm")
    assert ("prefetcht0" in asm) == asked


@pytest.mark.parametrize("name", NAMES)
def test_knobs_outside_of_the_space_are_refused(name):
    chosen, target = template(name)
    op = Dense(64, 64, 64, act="u8", weight="s8")
    knobs = chosen.default(op, target)
    wrong = {**knobs, "rows": 16, "vectors": 16, "down": 3, "across": 6}
    with pytest.raises(ScheduleRefused, match="registers"):
        chosen.kernel(op, target, {key: wrong[key] for key in knobs})
