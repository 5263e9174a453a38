"""Vectors in TIR: the vocabulary of generated straight-line code."""

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

ROUNDING = 1.5 * 2**23
"""The sum f + ROUNDING has a unit in the last place of 1: the addition itself rounds f to an
integer, half to even. Its bits are 0x4b400000 + round(f), whose low byte is round(f) modulo 256."""

ROUNDING_BITS = 0x4B400000
"""The bits of ROUNDING: what is taken off those of a sum with it."""

OWN = "own"
"""The name of buffers that generated code allocates for itself."""


def const(value: int, dtype: str = "int32") -> tirx.Expr:
    return tirx.const(value, dtype)


def splat(value: int | tirx.Expr, dtype: str, lanes: int) -> tirx.Expr:
    """A number, or a scalar expression of `dtype`, in every lane; one lane is no vector."""
    value = tirx.const(value, dtype) if isinstance(value, int | float) else value
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def ramp(start: int | tirx.Expr, lanes: int) -> tirx.Expr:
    """The indices start, start + 1, ...; one lane is no vector."""
    start = const(start) if isinstance(start, int) else start
    return start if lanes == 1 else tirx.Ramp(start, const(1), lanes)


def vector(dtype: str, lanes: int) -> str:
    """The dtype of a vector; one lane is none."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def load(buffer: tirx.Var, index: Sequence, lanes: int) -> tirx.Expr:
    """`lanes` neighbours in the last axis."""
    *outer, start = index
    return buffer[(*outer, ramp(start, lanes))]


def store(buffer: tirx.Var, index: Sequence, value: tirx.Expr, lanes: int) -> None:
    """Emit the store of `lanes` neighbours in the last axis."""
    *outer, start = index
    tb.buffer_store(buffer, value, [*outer, ramp(start, lanes)])


def reinterpret(dtype: str, value: tirx.Expr) -> tirx.Expr:
    return tirx.reinterpret(dtype, value)


def shuffle(vector: tirx.Expr, lanes: Sequence[int]) -> tirx.Expr:
    """Those lanes of a vector, chosen when the code is generated."""
    return tirx.Shuffle([vector], [const(lane) for lane in lanes])


def joined(parts: Sequence[tirx.Expr], lanes: Sequence[int]) -> tirx.Expr:
    """Those lanes of several vectors, counted through."""
    return tirx.Shuffle(list(parts), [const(lane) for lane in lanes])


def constants(values: Sequence[int], dtype: str) -> tirx.Expr:
    """A vector of numbers; it becomes one constant in memory."""
    scalars = [const(value, dtype) for value in values]
    return tirx.Shuffle(scalars, [const(lane) for lane in range(len(scalars))])


def repeat(vector: tirx.Expr, lanes: int, times: int) -> tirx.Expr:
    """A vector of `lanes`, `times` times side by side (vbroadcasti32x4 and its like)."""
    if times == 1:
        return vector
    vector = tb.Bind(vector)  # named first: it is an operand several times
    return tirx.Shuffle([vector] * times, [const(lane) for lane in range(lanes * times)])


def intrinsic(dtype: str, name: str, *args) -> tirx.Expr:
    """An LLVM intrinsic by name.

    Not marked pure: the simplifier would inline a bound pure value into all its uses, and chains
    of them would grow exponentially.
    """
    return tirx.call_llvm_intrin(dtype, name, *args)


def lookup_in_loop(name: str, nbytes: int) -> Callable:
    """lookup(table, code): table[code] by the LLVM intrinsic `name`, which takes tables of 16 bytes
    and vectors of `nbytes`, in a loop that is vectorized to `nbytes` codes.

    Vectorizing makes vectors of the code and of the result, but takes no Shuffle: the table,
    already a vector, is arithmetic on constants.
    """

    def byte(table: Sequence[int], code: tirx.Expr) -> tirx.Expr:
        low, high = (
            sum(value << 8 * i for i, value in enumerate(table[start : start + 8]))
            for start in (0, 8)
        )
        words = nbytes // 8
        odd = tirx.Ramp(const(0, "int64"), const(1, "int64"), words) & _splat64(1, words)
        halves = reinterpret(
            f"uint8x{nbytes}", _splat64(low, words) + odd * _splat64(high - low, words)
        )
        # Pure, or it would not be vectorized.
        return tirx.call_llvm_pure_intrin("uint8", name, halves, code)

    return byte


def _splat64(value: int, lanes: int) -> tirx.Expr:
    """The value modulo 2^64 in every lane."""
    return splat((value + 2**63) % 2**64 - 2**63, "int64", lanes)


def bind(value: tirx.Expr) -> tirx.Var:
    """Emit `name = value`, so that using it twice does not compute it twice."""
    return tb.Bind(value)


def scratch(shape: Sequence[int], dtype: str) -> tirx.Var:
    """Emit a buffer of our own: registers, where every index is constant."""
    return IRBuilder.name(OWN, tb.sblock_alloc_buffer(tuple(shape), dtype))


def mask(bools: tirx.Expr, lanes: int, bits: int) -> tirx.Var:
    """Emit the lanes of a vector of bools as the bits of an integer of `bits` bits, 32 or 64.

    For LLVM it has to stop being a vector of single bits: it would join and shuffle those of
    several masks, and its code for that is wrong at times (LLVM 22 used a mask register that
    another mask was still in). The fence, for numbers of floating point alone, costs nothing. The
    number goes through memory, since TVM would look into it and find a vector of bools, which is
    no operand of what follows.
    """
    memory = scratch((1,), f"uint{bits}")
    number = reinterpret(f"uint{lanes}", bools.astype(f"uint1x{lanes}"))
    tb.buffer_store(memory, number.astype(f"uint{bits}"), [0])
    real = reinterpret(f"float{bits}", memory[0])
    fenced = tirx.call_llvm_pure_intrin(f"float{bits}", "llvm.arithmetic.fence", real)
    return bind(reinterpret(f"uint{bits}", fenced))


def fenced(value: tirx.Expr, count: int) -> tirx.Expr:
    """A vector of `count` bytes, a multiple of 4, that LLVM does not look into: no instruction."""
    dtype = value.ty.dtype
    real = reinterpret(f"float32x{count // 4}", bind(value))
    name = "llvm.arithmetic.fence"
    return reinterpret(str(dtype), tirx.call_llvm_pure_intrin(f"float32x{count // 4}", name, real))


class Names:
    """Names for the values of long chains of straight-line code: `x = names(value)`.

    They go through memory, which LLVM makes a register. Whatever TVM knows as the value of a
    variable it looks into wherever the variable is used, and over a chain of those its work grows
    exponentially (`bind`); of memory it knows nothing.
    """

    def __init__(self) -> None:
        self._memory: dict[str, tirx.Var] = {}

    def __call__(self, value: tirx.Expr) -> tirx.Var:
        """Emit the naming of a vector."""
        dtype = value.ty.dtype
        lanes, kind = dtype.lanes, str(dtype).split("x")[0]
        if str(dtype) not in self._memory:
            self._memory[str(dtype)] = scratch((lanes,), kind)
        memory = self._memory[str(dtype)]
        store(memory, [0], value, lanes)
        return bind(load(memory, [0], lanes))
