"""Buffers whose elements int32 does not count are refused by name, before any is allocated."""

import pytest
from fake_kernel import fake_kernel
from tvm import IRModule, te

from lpgen import templates
from lpgen.algorithms.kernel import Function
from lpgen.build.lower import lower
from lpgen.errors import ScheduleRefused, TooLarge, UserError
from lpgen.ops import Dense, parse
from lpgen.records.choose import DefaultWarning, choose
from lpgen.target import Target
from lpgen.tune.worker import reason_of

LIMIT = 2**31 - 1


def default_kernel(name: str, target: str, text: str):
    template, row, op = templates.get(name), Target.parse(target), parse(text)
    return template.kernel(op, row, template.default(op, row))


def tables(h: int) -> str:
    return f"conv2d h={h} w=2048 ic=256 oc=1 kernel=3 pad=1 act=u8 weight=s8"


def test_tables_are_as_many_as_int32_counts():
    # Two digits of 16 entries for every fourth channel of a padded pixel.
    line = 2050 * 256 // 4 * 2 * 16
    fits = LIMIT // line - 2
    default_kernel("x86/lut_sum", "avx512bw", tables(fits))
    with pytest.raises(TooLarge, match=f"buffer encode has {(fits + 3) * line} bytes .*{LIMIT}$"):
        default_kernel("x86/lut_sum", "avx512bw", tables(fits + 1))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dense m=700000000 n=1 k=1", f"buffer pad has {700_000_000 * 4} bytes"),
        ("dense m=2147483647 n=1 k=1", f"buffer x has {LIMIT} elements .* in whole tiles more"),
    ],
)
def test_the_buffer_is_named(text, problem):
    with pytest.raises(TooLarge, match=problem):
        default_kernel("x86/dot", "avx512vnni", f"{text} act=u8 weight=s8")


def test_packed_weights_count_in_whole_blocks_of_panels():
    text = "dense m=1 n=700000000 k=1 act=u8 weight=s8"
    op, target = parse(text), Target.parse("avx512vnni")
    knobs = templates.get("x86/dot").default(op, target)
    width = 16 * knobs["vectors"] * max(knobs["n_block"], 1)
    elements = -(-op.n // width) * width * 4
    with pytest.raises(TooLarge, match=f"buffer packed has {elements} elements"):
        default_kernel("x86/dot", "avx512vnni", text)


def test_what_a_schedule_cuts_down_may_be_large():
    # All tiles together are 8 GiB; there is one at a time.
    text = "dense m=16384 n=131071 k=16 act=u8 weight=s8"
    kernel = default_kernel("generic/generic", "generic", text)
    lower({"f": kernel.function}, Target.parse("generic"))


def test_the_next_template_serves():
    text = "dense m=700000000 n=1 k=1 act=u8 weight=s8"
    with pytest.warns(DefaultWarning, match=r"generic/generic serves, not x86/dot: buffer"):
        choice = choose(text, "avx512vnni", use_shipped=False)
    assert choice.template == "generic/generic"
    with pytest.raises(UserError, match=r"no template can be built on avx2: x86/dot: buffer x "):
        choose("dense m=2147483647 n=1 k=1 act=u8 weight=s8", "avx2", use_shipped=False)


def test_lowering_refuses_what_no_template_has_seen():
    kernel = fake_kernel(Dense(600_000, 1, 1000, "u8", "s8"), serial=True)
    with pytest.raises(TooLarge, match="buffer left has 2400000000 bytes"):
        lower({"f": kernel.function}, Target.parse("generic"))


def strided(factor: int) -> IRModule:
    """y[i] = x[min(factor * i + 5, last)] + packed[i], all of 2^30 elements."""
    size = 2**30
    x = te.placeholder((size,), "uint8", name="x")
    packed = te.placeholder((size,), "uint8", name="packed")
    y = te.compute((size,), lambda i: x[te.min(i * factor + 5, size - 1)] + packed[i], name="y")
    return IRModule({"main": te.create_prim_func([x, packed, y])})


def test_an_index_may_not_leave_int32_on_its_way_to_a_buffer():
    lower({"f": Function.of_module(strided(1))}, Target.parse("generic"))
    with pytest.raises(TooLarge, match=f"index of buffer x reaches {2 * (2**30 - 1) + 5}, the"):
        lower({"f": Function.of_module(strided(2))}, Target.parse("generic"))


def test_the_search_takes_it_for_a_refusal():
    assert issubclass(TooLarge, ScheduleRefused)
    assert reason_of(TooLarge("buffer pad")) == "refused: buffer pad"
