"""Tensor intrinsics of the dot algorithm: an instruction's meaning, as a loop, and the instruction.

Each public function registers one and returns its name. All work on one vector of `isa.lanes`
columns: A is what one row contributes to a step of k, B the weights, C the accumulator.
"""

from collections.abc import Callable

from tvm import tirx
from tvm.s_tir import TensorIntrin
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen.schedules.x86.isa import Isa

Shape = tuple[int, ...]


def add_bytes(isa: Isa, acc, a, b, left: str):
    """acc + the products of the bytes of vectors a (of dtype `left`) and b, four to a lane."""
    if isa.dot:
        return _call(acc.ty.dtype, isa.dot, acc, *_unsigned_first(a, b, left))
    return acc + widened(isa, _pairs(isa, a, b, left))


def add_words(isa: Isa, acc, a, b):
    """acc + the products of the int16 of vectors a and b, two to a lane."""
    return acc + _call(acc.ty.dtype, isa.widen, a, b)


def add_pairs(isa: Isa, acc, a, b, left: str):
    """acc (int16) + the products of the bytes of vectors a and b, two to an int16 lane."""
    return acc + _pairs(isa, a, b, left)


def widened(isa: Isa, pairs):
    """The sums of neighbouring int16 in int32."""
    ones = tirx.Broadcast(tirx.const(1, "int16"), isa.lanes * 2)
    return _call(f"int32x{isa.lanes}", isa.widen, pairs, ones)


def dot_bytes(isa: Isa, left: str, right: str) -> str:
    """C32 += A[4] * B[lanes, 4] for bytes of mixed sign (`left`, `right`: "uint8" or "int8").

    vpdpbusd where there is one, else vpmaddubsw, vpmaddwd, vpaddd, which is exact only while the
    sum of two products fits int16: the caller's bound.
    """

    def step(acc, a, b):
        return add_bytes(isa, acc, _splat(a, left, isa.lanes), b, left)

    return _matmul(f"{isa.level}_dot", isa.lanes, (4, left), (4, right), "int32", 1, step)


def dot_words(isa: Isa) -> str:
    """C32 += A[2] * B[lanes, 2] for int16: vpmaddwd, vpaddd."""

    def step(acc, a, b):
        return add_words(isa, acc, _splat(a, "int16", isa.lanes), b)

    return _matmul(f"{isa.level}_words", isa.lanes, (2, "int16"), (2, "int16"), "int32", 1, step)


def dot_pairs(isa: Isa, left: str, right: str) -> str:
    """C16[lanes, 2] += the sums of two neighbouring products of A[4] * B[lanes, 4]: vpmaddubsw,
    vpaddw. Exact while C fits int16.
    """

    def step(acc, a, b):
        return add_pairs(isa, acc, _splat(a, left, isa.lanes), b, left)

    return _matmul(f"{isa.level}_pairs", isa.lanes, (4, left), (4, right), "int16", 2, step)


SHUFFLES = {
    16: "llvm.x86.ssse3.pshuf.b.128",
    32: "llvm.x86.avx2.pshuf.b",
    64: "llvm.x86.avx512.pshuf.b.512",
}
"""LLVM's names of vpshufb by bytes of a vector."""


def lookup(nbytes: int) -> Callable | None:
    """What looks up table[code] in a loop that is vectorized to `nbytes` codes: (v)pshufb; None
    where there is none. It takes up to 16 bytes and a code in uint8.
    """
    if nbytes not in SHUFFLES:
        return None

    def byte(table: tuple[int, ...], code):
        # Vectorizing makes vectors of the code and of the result, but takes no Shuffle: the table,
        # already a vector, is arithmetic on constants.
        low, high = (
            sum(value << 8 * i for i, value in enumerate(table[start : start + 8]))
            for start in (0, 8)
        )
        words = nbytes // 8
        odd = tirx.Ramp(tirx.const(0, "int64"), tirx.const(1, "int64"), words) & _splat64(1, words)
        halves = _splat64(low, words) + odd * _splat64(high - low, words)
        return _call("uint8", SHUFFLES[nbytes], tirx.reinterpret(f"uint8x{nbytes}", halves), code)

    return byte


def _splat64(value: int, lanes: int):
    """The value modulo 2^64 in every lane."""
    value = (value + 2**63) % 2**64 - 2**63
    return tirx.Broadcast(tirx.const(value, "int64"), lanes)


def widen_pairs(isa: Isa) -> str:
    """C32[lanes] += A16[lanes, 2], both of a pair: vpmaddwd with ones, vpaddd."""
    lanes = isa.lanes

    def build(implementation: bool):
        a, c = _argument("A", (lanes, 2), "int16"), _argument("C", (lanes,), "int32")
        with tb.sblock("root"):
            tb.reads([c[0:lanes], a[0:lanes, 0:2]])
            tb.writes([c[0:lanes]])
            if implementation:
                total = _vector(c, [0], lanes) + widened(isa, _vector(a, [0, 0], lanes * 2))
                tb.buffer_store(c, total, [_ramp(lanes)])
                return
            with tb.serial(0, lanes) as i, tb.serial(0, 2) as p, tb.sblock("update"):
                vi, vp = tb.axis.remap("SR", [i, p])
                tb.buffer_store(c, c[vi] + a[vi, vp].astype("int32"), [vi])

    return _register(f"lpgen_{isa.level}_widen", build)


def _matmul(
    name: str,
    lanes: int,
    left: tuple[int, str],
    right: tuple[int, str],
    acc: str,
    pairs: int,
    step: Callable,
) -> str:
    """Register C[lanes(, pairs)] += A[kq] * B[lanes, kq], with `step` of vectors as instruction."""
    kq = left[0]

    def build(implementation: bool):
        a = _argument("A", (kq,), left[1])
        b = _argument("B", (lanes, kq), right[1])
        shape = (lanes,) if pairs == 1 else (lanes, pairs)
        c = _argument("C", shape, acc)
        whole = [slice(0, extent) for extent in shape]
        with tb.sblock("root"):
            tb.reads([c[tuple(whole)], a[0:kq], b[0:lanes, 0:kq]])
            tb.writes([c[tuple(whole)]])
            if implementation:
                origin = [0] * len(shape)
                old = _vector(c, origin, lanes * pairs)
                # Bound to a name: the broadcast of a scalar load becomes one vpbroadcastd.
                word = tb.Bind(tirx.reinterpret("int32", _vector(a, [0], kq)))
                new = step(old, word, _vector(b, [0, 0], lanes * kq))
                tb.buffer_store(c, new, [*origin[:-1], _ramp(lanes * pairs)])
                return
            _meaning(a, b, c, lanes, kq, pairs)

    return _register(f"lpgen_{name}_{left[1]}_{right[1]}", build)


def _meaning(a, b, c, lanes: int, kq: int, pairs: int) -> None:
    acc = c.dtype
    if pairs == 1:
        with tb.serial(0, lanes) as i, tb.serial(0, kq) as k, tb.sblock("update"):
            vi, vk = tb.axis.remap("SR", [i, k])
            tb.buffer_store(c, c[vi] + a[vk].astype(acc) * b[vi, vk].astype(acc), [vi])
        return
    near = kq // pairs
    with tb.serial(0, lanes) as i, tb.serial(0, pairs) as p, tb.serial(0, near) as k:
        with tb.sblock("update"):
            vi, vp, vk = tb.axis.remap("SSR", [i, p, k])
            product = a[vp * near + vk].astype(acc) * b[vi, vp * near + vk].astype(acc)
            tb.buffer_store(c, c[vi, vp] + product, [vi, vp])


def _register(name: str, build: Callable[[bool], None]) -> str:
    """Register build(False), the meaning, and build(True), the instruction, under `name`."""
    sides = []
    for implementation in (False, True):
        with IRBuilder() as builder:
            with tb.prim_func(s_tir=True):
                build(implementation)
        sides.append(builder.get())
    TensorIntrin.register(name, *sides, override=True)
    return name


def _argument(name: str, shape: Shape, dtype: str):
    return tb.arg(name, tb.buffer(shape, dtype, offset_factor=1))


def _ramp(lanes: int) -> tirx.Ramp:
    return tirx.Ramp(tirx.const(0, "int32"), tirx.const(1, "int32"), lanes)


def _vector(buffer, origin: list[int], lanes: int):
    return buffer[(*origin[:-1], _ramp(lanes))]


def _call(dtype, name: str, *args):
    return tirx.call_llvm_pure_intrin(str(dtype), name, *args)


def _splat(word, dtype: str, lanes: int):
    """The four bytes of an int32 in every 32-bit lane, as a vector of `dtype`."""
    count = lanes * (2 if dtype == "int16" else 4)
    return tirx.reinterpret(f"{dtype}x{count}", tirx.Broadcast(word, lanes))


def _unsigned_first(a, b, left: str) -> tuple:
    """The operand order that belongs to vpdpbusd and vpmaddubsw: unsigned, signed."""
    return (b, a) if left == "int8" else (a, b)


def _pairs(isa: Isa, a, b, left: str):
    return _call(f"int16x{isa.lanes * 2}", isa.pairs, *_unsigned_first(a, b, left))
