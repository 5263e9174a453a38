"""The compute peak of an x86 vector instruction set: its 8-bit dot product on registers only."""

from functools import partial

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.isa import Peak
from lpgen.schedules.x86.isa import PMADDUBSW, X86, isa_of
from lpgen.space import Knobs
from lpgen.target import Target

_STEPS = 4000
_WIDTH = {128: "xmm", 256: "ymm", 512: "zmm"}


def peak(target: Target, knobs: Knobs) -> Peak | None:
    """The loop that bounds a dot kernel with these knobs; None where there are no such vectors.

    vpdpbusd where there is one. Else vpmaddubsw, vpmaddwd, vpaddd, the shortest way from bytes to
    int32 sums (also the bound of kernels that widen to int16 first, for exactness); for kernels
    that sum in int16 (step=pairsN) vpmaddubsw, vpaddw.
    """
    isa = isa_of(target)
    if isa is None:
        return None
    pairs = str(knobs.get("step", "")).startswith("pairs")
    # Enough independent chains to hide the latency, and registers left for everything else.
    chains = isa.registers * 5 // 8
    if isa.has_dot4:
        names, sums, step = "vpdpbusd", chains, _dot
    else:
        v = "v" if isa.bits > 128 else ""
        names = f"{v}pmaddubsw + {v}paddw" if pairs else f"{v}pmaddubsw + {v}pmaddwd + {v}paddd"
        # One sum takes the products of several chains: an addition takes a single cycle.
        sums, step = isa.registers // 5, _add_pairs if pairs else _add_widened
    return Peak.of(
        f"{names} {_WIDTH[isa.bits]}",
        2 * 4 * isa.lanes * chains * _STEPS,
        sums * isa.lanes,
        partial(_loop, isa, chains, sums, step),
    )


def _loop(isa: X86, chains: int, sums: int, step, x, packed, y) -> None:
    lanes, width = isa.lanes, 4 * isa.lanes
    total = tb.sblock_alloc_buffer((sums * lanes,), "int32")
    operand = tb.sblock_alloc_buffer((chains * width,), "uint8")
    first = tb.Bind(x[(_ramp(0, width),)])
    right = tb.Bind(tirx.reinterpret(f"int8x{width}", packed[(_ramp(0, width),)]))
    for i in range(sums):
        zero = tirx.Broadcast(tirx.const(0, "int32"), lanes)
        tb.buffer_store(total, zero, [_ramp(i * lanes, lanes)])
    for i in range(chains):
        tb.buffer_store(operand, first, [_ramp(i * width, width)])
    with tb.serial(0, _STEPS):
        for i in range(chains):
            to, at = _ramp(i % sums * lanes, lanes), _ramp(i * width, width)
            new_total, new_operand = step(isa, total[(to,)], operand[(at,)], right)
            tb.buffer_store(total, new_total, [to])
            tb.buffer_store(operand, new_operand, [at])
    for i in range(sums):
        where = _ramp(i * lanes, lanes)
        tb.buffer_store(y, total[(where,)], [where])


def _dot(isa: X86, total, left, right) -> tuple:
    return isa.dot4(total, left, right), left


def _add_pairs(isa: X86, total, left, right) -> tuple:
    words, products = f"int16x{2 * isa.lanes}", _products(isa, left, right)
    added = tirx.reinterpret(words, total) + products
    return tirx.reinterpret(f"int32x{isa.lanes}", added), _as_operand(isa, products)


def _add_widened(isa: X86, total, left, right) -> tuple:
    products = _products(isa, left, right)
    return total + isa.sum2(products), _as_operand(isa, products)


def _products(isa: X86, left, right):
    return tb.Bind(
        tirx.call_llvm_intrin(f"int16x{2 * isa.lanes}", PMADDUBSW[isa.bits], left, right)
    )


def _as_operand(isa: X86, products):
    # The next operand: products of two constants would be moved out of the loop.
    return tirx.reinterpret(f"uint8x{4 * isa.lanes}", products)


def _ramp(start: int, lanes: int) -> tirx.Ramp:
    return tirx.Ramp(tirx.const(start, "int32"), tirx.const(1, "int32"), lanes)
