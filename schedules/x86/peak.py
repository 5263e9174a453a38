"""The compute peak of an x86 vector instruction set: its 8-bit dot product on registers only."""

from tvm import IRModule, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen.algorithms.peak import Peak
from lpgen.schedules.x86.isa import Isa
from lpgen.space import Knobs

_STEPS = 4000
_WIDTH = {128: "xmm", 256: "ymm", 512: "zmm"}


def peak(isa: Isa, knobs: Knobs) -> Peak:
    """The loop that bounds a dot kernel with these knobs.

    vpdpbusd where there is one. Else vpmaddubsw, vpmaddwd, vpaddd, the shortest way from bytes to
    int32 sums (also the bound of kernels that widen to int16 first, for exactness); for kernels
    that sum in int16 (step=pairsN) vpmaddubsw, vpaddw.
    """
    pairs = str(knobs.get("step", "")).startswith("pairs")
    if isa.dot:
        names = ("vpdpbusd",)
    else:
        prefix = "" if isa.bits == 128 else "v"
        names = ("pmaddubsw", "paddw") if pairs else ("pmaddubsw", "pmaddwd", "paddd")
        names = tuple(prefix + name for name in names)
    # Enough independent sums to hide the latency; the operands need registers, too.
    chains = isa.registers - 4
    instruction = f"{' + '.join(names)} {_WIDTH[isa.bits]}"
    ops = 2 * 4 * isa.lanes * chains * _STEPS
    module = _module(isa, chains, pairs and not isa.dot)
    return Peak(instruction, ops, chains * isa.lanes, module)


def _module(isa: Isa, chains: int, pairs: bool) -> IRModule:
    with IRBuilder() as builder:
        with tb.prim_func(s_tir=True):
            tb.func_name("main")
            tb.func_attr({"tirx.noalias": True, "global_symbol": "main"})
            x = tb.arg("x", tb.buffer((64,), "uint8"))
            packed = tb.arg("packed", tb.buffer((64,), "uint8"))
            y = tb.arg("y", tb.buffer((chains * isa.lanes,), "int32"))
            with tb.sblock("root"):
                tb.reads([])
                tb.writes([])
                _body(isa, chains, pairs, x, packed, y)
    return IRModule({"main": builder.get()})


def _body(isa: Isa, chains: int, pairs: bool, x, packed, y) -> None:
    lanes = isa.lanes
    sums = tb.sblock_alloc_buffer((chains * lanes,), "int32")
    left = tb.Bind(x[(_ramp(0, 4 * lanes),)])
    right = tb.Bind(tirx.reinterpret(f"int8x{4 * lanes}", packed[(_ramp(0, 4 * lanes),)]))
    for chain in range(chains):
        zero = tirx.Broadcast(tirx.const(0, "int32"), lanes)
        tb.buffer_store(sums, zero, [_ramp(chain * lanes, lanes)])
    with tb.serial(0, _STEPS):
        for chain in range(chains):
            where = _ramp(chain * lanes, lanes)
            tb.buffer_store(sums, _step(isa, sums[(where,)], left, right, pairs), [where])
    for chain in range(chains):
        where = _ramp(chain * lanes, lanes)
        tb.buffer_store(y, sums[(where,)], [where])


def _step(isa: Isa, old, left, right, pairs: bool):
    lanes = isa.lanes
    if isa.dot:
        return tirx.call_llvm_intrin(f"int32x{lanes}", isa.dot, old, left, right)
    # The old sum is the operand: products of two constants would be moved out of the loop.
    old = tb.Bind(old)
    operand = tirx.reinterpret(f"uint8x{4 * lanes}", old)
    words = f"int16x{2 * lanes}"
    products = tb.Bind(tirx.call_llvm_intrin(words, isa.pairs, operand, right))
    if pairs:
        return tirx.reinterpret(f"int32x{lanes}", tirx.reinterpret(words, old) + products)
    ones = tirx.Broadcast(tirx.const(1, "int16"), 2 * lanes)
    return old + tirx.call_llvm_intrin(f"int32x{lanes}", isa.widen, products, ones)


def _ramp(start: int, lanes: int) -> tirx.Ramp:
    return tirx.Ramp(tirx.const(start, "int32"), tirx.const(1, "int32"), lanes)
