"""Operations of instruction sets: what a level overrides computes what the operation means."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import tvm_ffi
from isa_cases import BOOK, MAKERS, Case, random
from kernels import assert_exact_on
from tvm import IRModule
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


class Plain(Isa):
    """Nothing but vectors."""

    level = "plain"
    bits, registers = 128, 16


class BytesAsTheyAre(Plain):
    """As schedules see avxvnniint8: the meaning of `dot4` is exact, whatever the signs."""

    level = "bytes as they are"
    bits = 256
    has_dot4 = True


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
