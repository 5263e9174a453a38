"""The compute peak of AMX: tdpbusd on tile registers only."""

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.isa import Peak
from lpgen.space import Knobs
from lpgen.target import Target

# Six accumulators hide the latency of 52 cycles: a multiplication takes 16 of them.
_TILES, _LEFT, _RIGHT = 6, 6, 7
_ROWS, _ROW_BYTES = 16, 64
_SUMS = _ROWS * _ROW_BYTES // 4
_OPS = 2 * _SUMS * _ROW_BYTES
_STEPS = 200


def peak(target: Target, knobs: Knobs) -> Peak:
    """The loop that bounds a kernel of this family with these knobs."""
    return Peak.of("tdpbusd", _OPS * _TILES * _STEPS, _TILES * _SUMS, _loop)


def _loop(x, packed, y) -> None:
    # What ldtilecfg loads: palette 1, the bytes of a row and the rows of each register.
    palette = np.zeros(64, np.uint8)
    palette[0], palette[16:32:2], palette[48:56] = 1, _ROW_BYTES, _ROWS
    words = palette.view(np.int32)
    memory = tb.sblock_alloc_buffer((words.size,), "int32")
    for i, word in enumerate(words):
        tb.buffer_store(memory, int(word), [i])
    _emit("llvm.x86.ldtilecfg", tirx.address_of(memory[0]))
    stride = tirx.const(0, "int64")
    for tile, operand in ((_LEFT, x), (_RIGHT, packed)):
        _emit("llvm.x86.tileloadd64", tile, tirx.address_of(operand[0]), stride)
    for tile in range(_TILES):
        _emit("llvm.x86.tilezero", tile)
    with tb.serial(0, _STEPS):
        for tile in range(_TILES):
            _emit("llvm.x86.tdpbusd", tile, _LEFT, _RIGHT)
    for tile in range(_TILES):
        row_bytes = tirx.const(_ROW_BYTES, "int64")
        _emit("llvm.x86.tilestored64", tile, tirx.address_of(y[tile * _SUMS]), row_bytes)
    _emit("llvm.x86.tilerelease")


def _emit(name: str, *args) -> None:
    operands = [tirx.const(arg, "int8") if isinstance(arg, int) else arg for arg in args]
    tb.evaluate(tirx.call_llvm_intrin("void", name, *operands))
