"""The loop of `ReadProbe`, as fast as memory can be read on one thread."""

from typing import Any

from tvm import IRModule, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

_PREFETCH_AHEAD = 1024


def reader(sums: int, vector: int, far: bool) -> IRModule:
    """main(data: uint8[n], result): that many sums of all whole vectors of so many bytes.

    far: ask for the data in advance.
    """
    lanes = vector // 4
    with IRBuilder() as builder:
        with tb.prim_func(s_tir=True):
            tb.func_name("main")
            tb.func_attr({"tirx.noalias": True, "global_symbol": "main"})
            n = tirx.Var("n", "int32")
            data = tb.arg("data", tb.buffer((n,), "uint8"))
            result = tb.arg("result", tb.buffer((sums * lanes,), "int32"))
            with tb.sblock("root"):
                tb.reads([])
                tb.writes([])
                totals = tb.sblock_alloc_buffer((sums * lanes,), "int32")
                places = [_ramp(i * lanes, lanes) for i in range(sums)]
                for place in places:
                    tb.buffer_store(totals, tirx.Broadcast(tirx.const(0, "int32"), lanes), [place])
                with tb.serial(0, n // (sums * vector)) as step:
                    for i, place in enumerate(places):
                        start = (step * sums + i) * vector
                        if far:
                            _prefetch(tirx.address_of(data[start + _PREFETCH_AHEAD]))
                        value = tirx.reinterpret(f"int32x{lanes}", data[(_ramp(start, vector),)])
                        tb.buffer_store(totals, totals[(place,)] + value, [place])
                for place in places:
                    tb.buffer_store(result, totals[(place,)], [place])
    return IRModule({"main": builder.get()})


def _prefetch(address: Any) -> None:
    read, keep_in_all_levels, data = (tirx.const(value, "int32") for value in (0, 3, 1))
    operands = (address, read, keep_in_all_levels, data)
    tb.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch.p0", *operands))


def _ramp(start: Any, lanes: int) -> tirx.Ramp:
    start = tirx.const(start, "int32") if isinstance(start, int) else start
    return tirx.Ramp(start, tirx.const(1, "int32"), lanes)
