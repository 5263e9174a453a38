"""The loop of `ReadProbe`, as fast as memory can be read on one thread."""

from typing import Any

from tvm import IRModule, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen.bench.probes import SUMS, VECTOR

_PREFETCH_AHEAD = 1024


def reader(far: bool) -> IRModule:
    """main(data: uint8[n], result): the sum of all whole pairs of 64-byte vectors."""
    lanes = VECTOR // 4
    with IRBuilder() as builder:
        with tb.prim_func(s_tir=True):
            tb.func_name("main")
            tb.func_attr({"tirx.noalias": True, "global_symbol": "main"})
            n = tirx.Var("n", "int32")
            data = tb.arg("data", tb.buffer((n,), "uint8"))
            result = tb.arg("result", tb.buffer((SUMS * lanes,), "int32"))
            with tb.sblock("root"):
                tb.reads([])
                tb.writes([])
                sums = tb.sblock_alloc_buffer((SUMS * lanes,), "int32")
                places = [_ramp(i * lanes, lanes) for i in range(SUMS)]
                for place in places:
                    tb.buffer_store(sums, tirx.Broadcast(tirx.const(0, "int32"), lanes), [place])
                with tb.serial(0, n // (SUMS * VECTOR)) as step:
                    for i, place in enumerate(places):
                        start = (step * SUMS + i) * VECTOR
                        if far:
                            _prefetch(tirx.address_of(data[start + _PREFETCH_AHEAD]))
                        vector = tirx.reinterpret(f"int32x{lanes}", data[(_ramp(start, VECTOR),)])
                        tb.buffer_store(sums, sums[(place,)] + vector, [place])
                for place in places:
                    tb.buffer_store(result, sums[(place,)], [place])
    return IRModule({"main": builder.get()})


def _prefetch(address: Any) -> None:
    read, keep_in_all_levels, data = (tirx.const(value, "int32") for value in (0, 3, 1))
    operands = (address, read, keep_in_all_levels, data)
    tb.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch.p0", *operands))


def _ramp(start: Any, lanes: int) -> tirx.Ramp:
    start = tirx.const(start, "int32") if isinstance(start, int) else start
    return tirx.Ramp(start, tirx.const(1, "int32"), lanes)
