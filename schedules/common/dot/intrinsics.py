"""Tensor intrinsics of the dot algorithm: an operation of an Isa, with its meaning as a loop.

Each public function registers one and returns its name. All work on one vector of `isa.lanes`
columns: A is what one row contributes to a step of k, B the weights, C the accumulator.
"""

import contextlib
from collections.abc import Callable

from tvm import tirx
from tvm.s_tir import TensorIntrin
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb

from lpgen.isa import Isa
from lpgen.tir import vectors as vec

Shape = tuple[int, ...]


def dot_bytes(isa: Isa, left: str, right: str, kq: int = 4, read_as: str = "") -> str:
    """C32 += A[kq] * B[lanes, kq] for bytes (`left`, `right`: "uint8" or "int8"), by `Isa.dot4` or,
    with kq=2, `Isa.add_twos`, or with kq=1 `Isa.add_scaled`.

    read_as: the other type of a byte, where A has no value that differs in it.
    """
    add = {4: isa.dot4, 2: isa.add_twos, 1: isa.add_scaled}[kq]

    def step(acc, a, b):
        return add(acc, _splat(a, read_as or left, isa.lanes, kq), b)

    name = f"{isa.level}_dot{kq}{read_as}"
    return _matmul(name, isa.lanes, (kq, left), (kq, right), "int32", 1, step)


def add_across(isa: Isa, dtype: str, right: str = "uint8") -> str:
    """C[lanes, kq] = A[kq] + B[lanes, kq]: four bytes modulo 256, of which C is read as `dtype` and
    B as `right`, or, of int16, two words."""
    kq, left = (2, "int16") if dtype == "int16" else (4, "uint8")
    lanes, count, shape = isa.lanes, isa.lanes * kq, (isa.lanes, kq)

    def build(implementation: bool):
        a, b = _argument("A", (kq,), left), _argument("B", shape, right)
        c = _argument("C", shape, dtype)
        with tb.sblock("root"):
            tb.reads([a[0:kq], b[0:lanes, 0:kq]])
            tb.writes([c[0:lanes, 0:kq]])
            if implementation:
                word = tb.Bind(tirx.reinterpret("int32", _vector(a, [0], kq)))
                weights = tirx.reinterpret(f"{left}x{count}", _vector(b, [0, 0], count))
                total = _splat(word, left, lanes, kq) + weights
                total = tirx.reinterpret(f"{dtype}x{count}", total)
                tb.buffer_store(c, total, [0, _ramp(count)])
                return
            with tb.serial(0, lanes) as i, tb.serial(0, kq) as k, tb.sblock("update"):
                vi, vk = tb.axis.remap("SS", [i, k])
                total = a[vk] + b[vi, vk].astype(left)
                tb.buffer_store(c, total.astype(dtype), [vi, vk])

    return _register(f"lpgen_{isa.level}_add_{right}_{dtype}", build)


def dot_lanes(isa: Isa, lanes: int = 0, words: bool = False) -> str:
    """C32[lanes] += A[lanes, 4] * B[lanes, 4], uint8 times int8, by `Isa.dot4`; words: A[lanes, 2]
    and B[lanes, 2], int16, by `Isa.dot2`; lanes: fewer than a vector has, 0: as many."""
    lanes = lanes or isa.lanes
    kq, signs = (2, ("int16", "int16")) if words else (4, ("uint8", "int8"))
    add = isa.dot2 if words else isa.dot4
    shape, spare = (lanes, kq), isa.lanes - lanes

    def filled(vector, dtype: str, count: int):
        if not spare:
            return vector
        zeros = vec.splat(0, dtype, spare * count)
        return vec.joined([tb.Bind(vector), zeros], range(isa.lanes * count))

    def build(implementation: bool):
        a, b = (_argument(name, shape, dtype) for name, dtype in zip("AB", signs, strict=True))
        c = _argument("C", (lanes,), "int32")
        with tb.sblock("root"):
            tb.reads([c[0:lanes], a[0:lanes, 0:kq], b[0:lanes, 0:kq]])
            tb.writes([c[0:lanes]])
            if implementation:
                sides = zip((a, b), signs, strict=True)
                operands = [
                    filled(_vector(side, [0, 0], kq * lanes), dtype, kq) for side, dtype in sides
                ]
                new = add(filled(vec.load(c, [0], lanes), "int32", 1), *operands)
                new = vec.shuffle(tb.Bind(new), range(lanes)) if spare else new
                vec.store(c, [0], new, lanes)
                return
            with tb.serial(0, lanes) as i, tb.serial(0, kq) as k, tb.sblock("update"):
                vi, vk = tb.axis.remap("SR", [i, k])
                product = a[vi, vk].astype("int32") * b[vi, vk].astype("int32")
                tb.buffer_store(c, c[vi] + product, [vi])

    return _register(f"lpgen_{isa.level}_dot_lanes{lanes}_{kq}", build)


def less_lanes(lanes: int) -> str:
    """C32 -= the sum of A32[lanes]."""

    def build(implementation: bool):
        a, c = _argument("A", (lanes,), "int32"), _argument("C", (1,), "int32")
        with tb.sblock("root"):
            tb.reads([c[0:1], a[0:lanes]])
            tb.writes([c[0:1]])
            if implementation:
                name = f"llvm.vector.reduce.add.v{lanes}i32"
                total = tirx.call_llvm_intrin("int32", name, _vector(a, [0], lanes))
                tb.buffer_store(c, c[0] - total, [0])
                return
            with tb.serial(0, lanes) as i, tb.sblock("update"):
                vi = tb.axis.reduce(lanes, i)
                tb.buffer_store(c, c[0] + (tirx.const(0, "int32") - a[vi]), [0])

    return _register(f"lpgen_less{lanes}", build)


def dot_words(isa: Isa) -> str:
    """C32 += A[kq] * B[lanes, kq] for kq = `Isa.kq_words` int16, by `Isa.dot2` or `Isa.dot1`."""
    kq, add = isa.kq_words, isa.dot2 if isa.kq_words == 2 else isa.dot1

    def step(acc, a, b):
        return add(acc, _splat(a, "int16", isa.lanes, kq), b)

    name = f"{isa.level}_words"
    return _matmul(name, isa.lanes, (kq, "int16"), (kq, "int16"), "int32", 1, step)


def dot_pairs(isa: Isa, left: str, right: str, kq: int = 4, read_as: str = "") -> str:
    """C16[lanes, 2] += the sums of two neighbouring products of A[4] * B[lanes, 4], by
    `Isa.add_pairs`, or with kq=2 the products, by `Isa.add_each`, with kq=1 to C16[lanes] by
    `Isa.add_scaled`. Exact while C fits int16. read_as: as for `dot_bytes`.
    """
    add = {4: isa.add_pairs, 2: isa.add_each, 1: isa.add_scaled}[kq]

    def step(acc, a, b):
        return add(acc, _splat(a, read_as or left, isa.lanes, kq), b)

    name = f"{isa.level}_pairs{kq}{read_as}"
    return _matmul(name, isa.lanes, (kq, left), (kq, right), "int16", min(kq, 2), step)


def widen_pairs(isa: Isa, pairs: int = 2) -> str:
    """C32[lanes] += A16[lanes, 2], both of a pair, by `Isa.sum2`, or with pairs=1 A16[lanes]."""
    lanes = isa.lanes
    shape = (lanes, pairs) if pairs > 1 else (lanes,)

    def build(implementation: bool):
        a, c = _argument("A", shape, "int16"), _argument("C", (lanes,), "int32")
        with tb.sblock("root"):
            tb.reads([c[0:lanes], a[tuple(slice(0, extent) for extent in shape)]])
            tb.writes([c[0:lanes]])
            if implementation:
                halves = _vector(a, [0] * len(shape), lanes * pairs)
                sums = isa.sum2(halves) if pairs == 2 else halves.astype(f"int32x{lanes}")
                tb.buffer_store(c, _vector(c, [0], lanes) + sums, [_ramp(lanes)])
                return
            if pairs == 1:
                with tb.serial(0, lanes) as i, tb.sblock("update"):
                    vi = tb.axis.remap("S", [i])
                    tb.buffer_store(c, c[vi] + a[vi].astype("int32"), [vi])
                return
            with tb.serial(0, lanes) as i, tb.serial(0, pairs) as p, tb.sblock("update"):
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
    """Register C[lanes(, pairs)] += A[kq] * B[lanes, kq], with `step` of vectors for it."""
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
                bits = kq * (16 if left[1] == "int16" else 8)
                word = tb.Bind(tirx.reinterpret(f"int{bits}", _vector(a, [0], kq)))
                new = step(old, word, _vector(b, [0, 0], lanes * kq))
                tb.buffer_store(c, new, [*origin[:-1], _ramp(lanes * pairs)])
                return
            _meaning(a, b, c, lanes, kq, pairs)

    return _register(f"lpgen_{name}_{left[1]}_{right[1]}", build)


def _meaning(a, b, c, lanes: int, kq: int, pairs: int) -> None:
    acc = c.dtype
    if kq == 1:  # of a loop that is none no axis is left
        with contextlib.ExitStack() as loops:
            i = loops.enter_context(tb.serial(0, lanes))
            if str(acc) == "int32":  # int16 sums have no loop over what a lane multiplies
                loops.enter_context(tb.serial(0, kq))
            loops.enter_context(tb.sblock("update"))
            vi = tb.axis.spatial(lanes, i)
            tb.buffer_store(c, c[vi] + a[0].astype(acc) * b[vi, 0].astype(acc), [vi])
        return
    if pairs == 1:
        with tb.serial(0, lanes) as i, tb.serial(0, kq) as k, tb.sblock("update"):
            vi, vk = tb.axis.remap("SR", [i, k])
            tb.buffer_store(c, c[vi] + a[vk].astype(acc) * b[vi, vk].astype(acc), [vi])
        return
    near = kq // pairs
    if near == 1:
        with tb.serial(0, lanes) as i, tb.serial(0, pairs) as p, tb.sblock("update"):
            vi, vp = tb.axis.remap("SS", [i, p])
            product = a[vp].astype(acc) * b[vi, vp].astype(acc)
            tb.buffer_store(c, c[vi, vp] + product, [vi, vp])
        return
    with tb.serial(0, lanes) as i, tb.serial(0, pairs) as p, tb.serial(0, near) as k:
        with tb.sblock("update"):
            vi, vp, vk = tb.axis.remap("SSR", [i, p, k])
            product = a[vp * near + vk].astype(acc) * b[vi, vp * near + vk].astype(acc)
            tb.buffer_store(c, c[vi, vp] + product, [vi, vp])


def _register(name: str, build: Callable[[bool], None]) -> str:
    """Register build(False), the meaning, and build(True), the code, under `name`."""
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


def _ramp(lanes: int) -> tirx.Expr:
    return vec.ramp(0, lanes)


def _vector(buffer, origin: list[int], lanes: int):
    return buffer[(*origin[:-1], _ramp(lanes))]


def _splat(word, dtype: str, lanes: int, kq: int = 4):
    """The parts of an integer in every lane, as a vector of `dtype`; kq: how many they are, a
    single byte stays a number."""
    if kq == 1 and dtype != "int16":
        return tirx.reinterpret(dtype, word)
    count = lanes * kq
    return tirx.reinterpret(f"{dtype}x{count}", tirx.Broadcast(word, lanes))
