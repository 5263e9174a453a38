"""Operations of instruction sets: what a level overrides computes what the operation means."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import tvm_ffi
from kernels import assert_exact_on
from tvm import IRModule, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen import target as targets
from lpgen.build.lower import jit, jit_module
from lpgen.isa import ALL_SIGNS, Isa
from lpgen.ops import parse
from lpgen.runtime.memory import aligned_copy
from lpgen.schedules.x86.isa import isa_of
from lpgen.target import Target, cpu_features
from lpgen.templates import Template
from lpgen.tir import vectors as vec

BOOK = (7, 250, 3, 99, 0, 255, 128, 64, 1, 2, 4, 8, 16, 32, 77, 200)
NARROW = (
    (-128, 127, 0, "int8"),
    (-8, 7, 0, "int8"),
    (0, 255, 0, "uint8"),
    (-10, 245, 10, "uint8"),
    (0, 100, 90, "uint8"),
    (3, 12, 0, "uint8"),
)
RNG = np.random.default_rng(0)


class Plain(Isa):
    """Nothing but vectors."""

    level = "plain"
    bits, registers = 128, 16


class BytesAsTheyAre(Plain):
    """As schedules see avxvnniint8: the meaning of `dot4` is exact, whatever the signs."""

    level = "bytes as they are"
    bits = 256
    has_dot4 = True


@dataclass(frozen=True)
class Case:
    """One call of an operation. arrays: the operands, vectors; result: what it gives, by NumPy;
    call(isa, operation, *vectors): its TIR."""

    name: str
    arrays: tuple[np.ndarray, ...]
    result: np.ndarray
    call: Callable = lambda isa, operation, *operands: operation(*operands)


def random(dtype: str, count: int, low: int | None = None, high: int | None = None) -> np.ndarray:
    """Numbers of a type, all or those from `low` to `high`."""
    info = np.iinfo(dtype)
    first, last = info.min if low is None else low, info.max if high is None else high
    return RNG.integers(first, last, count, dtype, endpoint=True)


def neighbours(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    return (a.astype(np.int32) * b).reshape(-1, count).sum(axis=1)


def products(isa: Isa) -> list[Case]:
    """Of bytes; without one instruction the sums of two fit int16."""
    n, cases = isa.lanes, []
    for signs in isa.signs:
        for near in (True, False) if isa.has_dot4 else (True,):
            wide = {"uint8": (0, 255), "int8": (-128, 127)}
            small = {"uint8": (0, 127), "int8": (-64, 63)}
            a, b = (random(d, 4 * n, *(small if near else wide)[d]) for d in signs)
            acc = random("int32", n, -(2**20), 2**20)
            cases.append(Case("dot4", (acc, a, b), acc + neighbours(a, b, 4)))
        a, b = (random(d, 4 * n, *small[d]) for d in signs)
        acc = np.zeros(2 * n, np.int16)
        cases.append(Case("add_pairs", (acc, a, b), neighbours(a, b, 2).astype(np.int16)))
    return cases


def sums(isa: Isa) -> list[Case]:
    n = isa.lanes
    acc, a, b = random("int32", n, -99, 99), random("int16", 2 * n), random("int16", 2 * n, -255)
    ones, counts = np.ones(2 * n, np.int16), random("uint8", 4 * n)
    return [
        Case("dot2", (acc, a, b), acc + neighbours(a, b, 2)),
        Case("dot1", (acc, a[:n], b[:n]), acc + neighbours(a[:n], b[:n], 1)),
        Case("sum2", (a,), neighbours(a, ones, 2)),
        Case("sum4", (counts,), counts.reshape(-1, 4).sum(axis=1, dtype=np.int32)),
    ]


def lookups(isa: Isa) -> list[Case]:
    n = 4 * isa.lanes
    table, index = random("uint8", n), random("uint8", n, 0, 15)
    index[RNG.random(n) < 0.3] += 128
    lane = np.arange(n) // 16 * 16
    found = np.where(index < 128, table[lane + index % 16], 0).astype(np.uint8)
    signed = tuple(array.view(np.int8) for array in (table, index))
    cases = [Case("lookup16", (table, index), found)]
    cases.append(Case("lookup16", signed, found.view(np.int8)))
    if 64 in isa.tables:
        anything = random("uint8", n)
        cases.append(Case("lookup64", (table, anything), table[anything % 64]))
    if isa.has_lookup128:
        both = np.concatenate([table, more := random("uint8", n)])
        cases.append(Case("lookup128", (table, more, anything), both[anything % 128]))
    return cases


def bits(isa: Isa) -> list[Case]:
    n = isa.lanes
    a, b, c = (random("int32", n) for _ in range(3))
    cases = [
        Case("count_bits", (a,), np.array([(int(v) % 2**32).bit_count() for v in a], np.int32))
    ]
    for table in (0x96, 0xE8, 0x78, 0x3A, 0x80, 0x00, 0xFF, *random("uint8", 5)):
        result = np.zeros(n, np.int32)
        for i in range(8):
            if table >> i & 1:
                x, y, z = (v if i >> k & 1 else ~v for v, k in ((a, 2), (b, 1), (c, 0)))
                result |= x & y & z
        cases.append(Case("bit_logic", (a, b, c), result, logic(int(table))))
    chosen = random("uint8", min(64, 4 * n), 0, 1)
    word = np.packbits(chosen, bitorder="little").view(np.uint16 if chosen.size == 16 else "u4")
    word = word.view(np.uint64) if chosen.size == 64 else word.astype(np.uint32)
    cases.append(Case("bits_to_word", (chosen,), word, to_word))
    return cases


def logic(table: int) -> Callable:
    return lambda isa, operation, *operands: operation(table, *operands)


def to_word(isa: Isa, operation: Callable, chosen: tirx.Expr) -> tirx.Expr:
    lanes = int(chosen.ty.dtype.lanes)
    return operation(tirx.NE(chosen, vec.splat(0, "uint8", lanes)), lanes, max(32, lanes))


def narrowing(isa: Isa) -> list[Case]:
    n, cases = isa.lanes, []
    for low, high, zero, dtype in NARROW:
        real = RNG.uniform(2 * low - 9, 2 * high + 9, 4 * n).astype(np.float32)
        real[::5] = np.round(real[::5]) + np.float32(0.5)
        real[1:15:2] = [np.nan, -np.nan, np.inf, -np.inf, 1e30, -1e30, 0.5]
        kept = np.where(np.isnan(real), low, np.clip(np.nan_to_num(real), low, high))
        result = (np.rint(kept) + zero).astype(dtype)
        for count in (4, 2, 1):

            def call(isa, operation, *values, how=(low, high, zero, dtype), count=count):
                return operation(values[:count], *how)

            cases.append(Case("narrow4", tuple(real.reshape(4, n)), result[: count * n], call))
    return cases


MAKERS = {
    **{"dot4": products, "add_pairs": products},
    **dict.fromkeys(("dot1", "dot2", "sum2", "sum4"), sums),
    **{
        "lookup16": lookups,
        "lookup64": lookups,
        "lookup128": lookups,
        "count_bits": bits,
        "bit_logic": bits,
    },
    **{"bits_to_word": bits, "narrow4": narrowing},
}
"""By operation what makes its cases (and others)."""


def levels() -> dict[str, Isa]:
    """An Isa of each level and each set of overrides that features bring, by a target of it."""
    found = {}
    for name, target in targets.known().items():
        if (isa := isa_of(target)) is not None:
            found.setdefault((isa.level, isa.tables), (name, isa))
    return dict(found.values())


LEVELS = levels()
OVERRIDES = [
    (name, operation)
    for name, isa in LEVELS.items()
    for operation in MAKERS
    if getattr(type(isa), operation) is not getattr(Isa, operation)
    and (operation not in ("lookup64", "lookup128") or 64 in isa.tables)
]


def run(isa: Isa, operation: Callable, case: Case) -> np.ndarray:
    """What code of the operation gives on this CPU."""
    arrays, y = case.arrays, np.zeros_like(case.result)
    with IRBuilder() as builder, tb.prim_func(s_tir=True):
        tb.func_name("main")
        tb.func_attr({"tirx.noalias": True, "global_symbol": "main"})
        given = [
            tb.arg(f"x{i}", tb.buffer(array.shape, str(array.dtype)))
            for i, array in enumerate(arrays)
        ]
        out = tb.arg("y", tb.buffer(y.shape, str(y.dtype)))
        with tb.sblock("root"):
            tb.reads([])
            tb.writes([])
            operands = [
                vec.bind(vec.load(x, [0], a.size)) for x, a in zip(given, arrays, strict=True)
            ]
            value = case.call(isa, operation, *operands)
            count = int(value.ty.dtype.lanes)
            if count == y.size == 1:
                tb.buffer_store(out, value, [0])
            else:
                value = value if count == y.size else vec.shuffle(value, range(y.size))
                vec.store(out, [0], value, y.size)
    function = jit(IRModule({"main": builder.get()}), isa.target)
    function(*(tvm_ffi.from_dlpack(aligned_copy(array)) for array in arrays), to := at(y))
    return np.from_dlpack(to)


def at(y: np.ndarray):
    return tvm_ffi.from_dlpack(aligned_copy(y))


STANDS_IN = {"avxvnni": "avx512vnni"}
"""Level -> the feature that has the same instructions, in another encoding."""


def on_this_cpu(isa: Isa) -> Isa:
    missing = isa.target.missing_on(cpu_features())
    if missing and {STANDS_IN.get(isa.level), "avx512vl"} <= cpu_features():
        return type(isa)(Target.parse("native"))
    if missing:
        pytest.skip(f"{isa.level}: this CPU lacks {', '.join(missing)}")
    return isa


def cases_of(isa: Isa, operation: str) -> list[Case]:
    return [case for case in MAKERS[operation](isa) if case.name == operation]


@pytest.mark.sample(2)
@pytest.mark.parametrize(("level", "operation"), OVERRIDES)
def test_every_override_does_what_it_means(level, operation):
    isa = on_this_cpu(LEVELS[level])
    for case in cases_of(isa, operation):
        np.testing.assert_array_equal(run(isa, getattr(isa, operation), case), case.result)


@pytest.mark.parametrize("operation", MAKERS)
def test_every_meaning(operation):
    isa = Plain(Target.parse("native"))
    for case in cases_of(isa, operation):
        np.testing.assert_array_equal(run(isa, getattr(isa, operation), case), case.result)


def test_meaning_of_large_tables():
    class Large(Plain):
        bits = 512
        tables = (16, 64)
        has_lookup128 = True

    isa = Large(Target.parse("native"))
    for operation in ("lookup64", "lookup128"):
        for case in cases_of(isa, operation):
            np.testing.assert_array_equal(run(isa, getattr(isa, operation), case), case.result)


@pytest.mark.parametrize("level", LEVELS)
def test_lookup_in_a_vectorized_loop(level):
    isa = on_this_cpu(LEVELS[level])
    count = isa.bits // 8
    codes, byte = random("uint8", count, 0, 15), isa.lookup_in_loop(count)
    assert byte is not None
    assert Plain(isa.target).lookup_in_loop(count) is None
    with IRBuilder() as builder, tb.prim_func(s_tir=True):
        tb.func_name("main")
        tb.func_attr({"tirx.noalias": True, "global_symbol": "main"})
        x = tb.arg("x", tb.buffer((count,), "uint8"))
        y = tb.arg("y", tb.buffer((count,), "uint8"))
        with tb.sblock("root"):
            tb.reads([])
            tb.writes([])
            with tb.vectorized(0, count) as i:
                tb.buffer_store(y, byte(BOOK, x[i]), [i])
    function, to = jit(IRModule({"main": builder.get()}), isa.target), at(np.zeros_like(codes))
    function(at(codes), to)
    np.testing.assert_array_equal(np.from_dlpack(to), np.array(BOOK, np.uint8)[codes])


@pytest.mark.parametrize(
    ("algorithm", "text"),
    [
        (
            "bit_layers",
            "dense m=2 n=9 k=70 act=s8 weight=s8 layers=1..8 out=f32 scale=group32",
        ),
        ("bitserial", "dense m=5 n=9 k=70 act=u2 weight=s2 scale=channel out=s8"),
        ("blockwise_dot", "dense m=5 n=9 k=70 act=s8 weight=s4 out=f32 scale=group32"),
        ("depthwise", "conv2d h=6 w=7 ic=9 oc=9 groups=9 kernel=3x3 act=u8 weight=s8"),
        ("dot", "dense m=5 n=9 k=70 act=s8 weight=s8 scale=tensor out=u8"),
        ("dot", "dense m=5 n=9 k=70 act=u4 weight=s4 scale=tensor out=u8"),
        ("grouped_conv", "conv2d h=6 w=7 ic=16 oc=16 groups=4 kernel=3x3 act=u8 weight=s4"),
        ("lane_pack", "dense m=5 n=9 k=70 act=u1 weight=b1"),
        ("lut_product", "dense m=5 n=9 k=30 act=u2 weight=s2"),
        ("lut_sum", "dense m=5 n=9 k=70 act=u4 weight=s2 scale=channel out=s8"),
        ("lut_weight", "dense m=20 n=9 k=70 act=u1 weight=s4"),
        ("telescoped", "dense m=5 n=9 k=70 act=s8 weight=s4"),
    ],
)
def test_vectors_alone_are_enough(algorithm, text, monkeypatch):
    """Every algorithm is exact on an Isa that overrides nothing."""
    monkeypatch.setattr("lpgen.schedules.x86.isa.isa_of", Plain)
    template, target = Template("x86", algorithm), Target.parse("native")
    assert template.level(target) == "plain"
    op = parse(text)
    assert template.why_not(op, target) is None
    assert_exact_on(template, target, op, template.default(op, target))


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("algorithm", "text"),
    [
        (
            "bit_layers",
            "dense m=2 n=19 k=70 act=s8 weight=u8 layers=1..8 out=f32 scale=group32",
        ),
        ("blockwise_dot", "dense m=5 n=19 k=70 act=s8 weight=s4 out=f32 scale=group32"),
        ("blockwise_dot", "dense m=5 n=19 k=70 act=u8 weight=s8 out=f32 scale=group32"),
        ("depthwise", "conv2d h=6 w=7 ic=9 oc=9 groups=9 kernel=3x3 act=u8 weight=s8"),
        ("dot", "dense m=5 n=19 k=70 act=s8 weight=s8 scale=tensor out=u8"),
        ("dot", "dense m=5 n=19 k=70 act=u8 weight=u8"),
        ("grouped_conv", "conv2d h=6 w=7 ic=16 oc=16 groups=4 kernel=3x3 act=s8 weight=s8"),
        ("lane_pack", "dense m=5 n=19 k=70 act=u1 weight=b1"),
        ("telescoped", "dense m=5 n=19 k=70 act=s8 weight=s4"),
    ],
)
@pytest.mark.parametrize("level", ["alderlake", "arrowlake", "bytes as they are"])
def test_dot_products_in_256_bits(level, algorithm, text, monkeypatch):
    native = Target.parse("native")
    isa = on_this_cpu(LEVELS[level]) if level in LEVELS else BytesAsTheyAre(native)
    monkeypatch.setattr("lpgen.schedules.x86.isa.isa_of", type(isa))
    template, op = Template("x86", algorithm), parse(text)
    assert template.level(isa.target) == type(isa).level
    assert template.why_not(op, isa.target) is None
    assert_exact_on(template, isa.target, op, template.default(op, isa.target))


@pytest.mark.parametrize(
    ("level", "formats", "instruction"),
    [
        ("alderlake", "act=u8 weight=s8", "{vex}\tvpdpbusd"),
        ("alderlake", "act=s8 weight=s8", "{vex}\tvpdpbusd"),
        ("arrowlake", "act=u8 weight=s8", "{vex}\tvpdpbusd"),
        ("arrowlake", "act=s8 weight=s8", "vpdpbssd"),
        ("arrowlake", "act=u8 weight=u8", "vpdpbuud"),
    ],
)
def test_dot_products_are_encoded_as_the_target_has_them(level, formats, instruction):
    """VEX: a CPU without AVX-512 has no other; one instruction, and no int16 in between."""
    target = Target.parse(level)
    template, op = Template("x86", "dot"), parse(f"dense m=4 n=16 k=64 {formats}")
    kernel = template.kernel(op, target, template.default(op, target))
    assembly = jit_module(kernel, target).inspect_source("asm")
    assert re.findall(rf"\t{instruction}\t.*%ymm", assembly)
    assert not re.findall("zmm|vpmaddubsw", assembly)
    offset = "compensation" in {section.name for section in kernel.layout.sections}
    assert offset == (level == "alderlake" and formats[4] == "s")


def test_levels_say_what_they_multiply():
    for isa in LEVELS.values():
        assert set(isa.signs) <= set(ALL_SIGNS)
        assert set(isa.tables) <= {16, 64}
