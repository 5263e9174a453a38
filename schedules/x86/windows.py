"""Straight-line code of the depthwise algorithm: the copy of a block's input, and a register tile.

Both replace the loops that TVM's schedule left, whose meaning they keep:

* the copy becomes a few runs over whole rows, which LLVM turns into memcpy and memset;
* a tile goes over the columns of its input once. A column's window is made, and multiplied into
  all sums that it belongs to, before the next one is loaded.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.s_tir import SBlockRealize
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as tb
from tvm_ffi import structural_walk

from lpgen.algorithms.depthwise import Source, Window
from lpgen.schedules.x86 import intrinsics
from lpgen.schedules.x86.isa import Isa
from lpgen.schedules.x86.rewrite import axis_values, replace_nest, substitute


@dataclass(frozen=True)
class WindowStep:
    """How a tile is computed: the step ("bytes", "words" or "pairs") on windows of `left` dtype."""

    isa: Isa
    window: Window
    step: str
    left: str


def use_windows(func: tirx.PrimFunc, how: WindowStep, source: Source) -> tirx.PrimFunc:
    """`func` with the blocks "pad", "tile_init" and "tile_update" replaced.

    The innermost loops around "pad" are rows and values of a row; those around "tile_update" the
    outputs of a tile along a and b, lanes, and then window groups, taps along b, taps of a lane.
    """
    body = replace_nest(func.body, "pad", lambda loops, realize: _copy(source, loops, realize))
    body = replace_nest(body, "tile_init", lambda loops, realize: tirx.Evaluate(0))
    body = replace_nest(body, "tile_update", lambda loops, realize: _tile(how, loops, realize))
    return func.with_body(body)


# ---- the copy


def _copy(source: Source, loops: list[tirx.For], realize: SBlockRealize) -> tirx.Stmt:
    """Rows inside of the input: its values between two fills; rows outside: a fill."""
    op, (first, count) = source.op, source.copied
    image, block, *_ = realize.iter_values
    pad, x = realize.block.body.buffer, _loads(realize.block.body)[0].source
    start, stop = first * op.oc, (first + count) * op.oc
    fill = tirx.const(source.nothing, source.dtype)

    def set_all(t, begin: int, end: int) -> None:
        if begin < end:
            with tb.serial(0, end - begin) as i:
                tb.buffer_store(pad, fill, [image, block, t, begin + i])

    def values(t, row) -> None:
        def at(i):
            value = x[image, row, i].astype(source.dtype)
            return value + tirx.const(source.offset, source.dtype) if source.offset else value

        if source.repeats == 1:
            with tb.serial(0, stop - start) as i:
                tb.buffer_store(pad, at(i), [image, block, t, start + i])
            return
        with tb.serial(0, count * op.ic) as i, tb.unroll(0, source.repeats) as j:
            where = start + i * source.repeats + j
            tb.buffer_store(pad, at(i), [image, block, t, where])

    with IRBuilder() as builder:
        with tb.serial(0, source.height) as t:
            row = block * source.block_stride + t - op.pad[0]
            with tb.If(tirx.all(row >= 0, row < op.h)):
                with tb.Then():
                    set_all(t, 0, start)
                    values(t, row)
                    set_all(t, stop, source.pitch)
                with tb.Else():
                    set_all(t, 0, source.pitch)
    body = builder.get()
    for loop in reversed(loops[:-2]):
        body = tirx.For(loop.loop_var, 0, loop.extent, loop.kind, body)
    return body


# ---- the tile


def _tile(how: WindowStep, loops: list[tirx.For], realize: SBlockRealize) -> tirx.Stmt:
    code = _TileCode(how, loops, realize)
    return tirx.SeqStmt(list(code.statements()))


class _TileCode:
    """The statements of one tile; `loops` are a, b, lanes, groups, s, kt."""

    def __init__(self, how: WindowStep, loops: list[tirx.For], realize: SBlockRealize) -> None:
        self.how, self.window, self.isa = how, how.window, how.isa
        self.loops, self.values = loops, axis_values(realize)
        store = realize.block.body
        self.tile = store.buffer[tuple(store.indices)]
        loads = [load for load in _loads(store) if not load.source.same_as(store.buffer)]
        self.left, self.right = loads
        w, lanes = self.window, self.isa.lanes
        dtype = {"words": "int16"}.get(how.step, self.left.source.dtype)
        self.ready = tirx.decl_buffer((w.groups, lanes * w.kq), dtype, name="window")
        self.sums = tirx.decl_buffer((w.tile_a, w.tile_b, lanes * 2), "int16", name="sums")

    def statements(self) -> Iterator[tirx.Stmt]:
        w, pairs = self.window, self.how.step == "pairs"
        yield tirx.AllocBuffer(self.ready)
        if pairs:
            yield tirx.AllocBuffer(self.sums)
        yield from self._zero()
        for b, used in self._columns().items():
            for group in range(w.groups):
                yield self._make_window(b, group)
                for ib, s in used:
                    for ia in range(w.tile_a):
                        if w.touches(ia, group):
                            yield self._multiply(ia, ib, group, s)
        if pairs:
            for ia, ib in self._outputs():
                yield self._store(ia, ib, intrinsics.widened(self.isa, self._sum(ia, ib)))

    def _outputs(self) -> Iterator[tuple[int, int]]:
        for ia in range(self.window.tile_a):
            for ib in range(self.window.tile_b):
                yield ia, ib

    def _columns(self) -> dict[int, list[tuple[int, int]]]:
        """Place along b -> the (output, tap) pairs along b that read it."""
        w, found = self.window, {}
        for ib in range(w.tile_b):
            for s in range(w.taps_b):
                found.setdefault(ib * w.stride_b + s * w.dilation_b, []).append((ib, s))
        return dict(sorted(found.items()))

    def _make_window(self, b: int, group: int) -> tirx.Stmt:
        """window[group] = the taps of `group` at place b, interleaved channel by channel."""
        w, lanes = self.window, self.isa.lanes
        ib, s = self._columns()[b][0]
        rows = [_vector(self._element(self.left, 0, ib, group, s, kt), lanes) for kt in range(w.kq)]
        order = [kt * lanes + lane for lane in range(lanes) for kt in range(w.kq)]
        value = tirx.Shuffle(rows, [tirx.const(i, "int32") for i in order])
        if self.how.step == "words":
            value = value.astype(f"int16x{lanes * w.kq}")
        return tirx.BufferStore(self.ready, value, [group, _ramp(0, lanes * w.kq)])

    def _multiply(self, ia: int, ib: int, group: int, s: int) -> tirx.Stmt:
        lanes, kq, left = self.isa.lanes, self.window.kq, self.how.left
        a = self.ready[group, _ramp(0, lanes * kq)]
        b = _vector(self._element(self.right, ia, ib, group, s, 0), lanes * kq)
        if self.how.step == "pairs":
            new = intrinsics.add_pairs(self.isa, self._sum(ia, ib), a, b, left)
            return tirx.BufferStore(self.sums, new, [ia, ib, _ramp(0, lanes * 2)])
        acc = _vector(self._place(ia, ib), lanes)
        if self.how.step == "words":
            return self._store(ia, ib, intrinsics.add_words(self.isa, acc, a, b))
        return self._store(ia, ib, intrinsics.add_bytes(self.isa, acc, a, b, left))

    def _zero(self) -> Iterator[tirx.Stmt]:
        lanes = self.isa.lanes
        for ia, ib in self._outputs():
            if self.how.step == "pairs":
                zeros = tirx.Broadcast(tirx.const(0, "int16"), lanes * 2)
                yield tirx.BufferStore(self.sums, zeros, [ia, ib, _ramp(0, lanes * 2)])
            else:
                yield self._store(ia, ib, tirx.Broadcast(tirx.const(0, "int32"), lanes))

    def _sum(self, ia: int, ib: int):
        return self.sums[ia, ib, _ramp(0, self.isa.lanes * 2)]

    def _place(self, ia: int, ib: int) -> TensorLoad:
        return self._element(self.tile, ia, ib, 0, 0, 0)

    def _store(self, ia: int, ib: int, value) -> tirx.Stmt:
        place = self._place(ia, ib)
        *outer, lane = place.indices
        return tirx.BufferStore(place.source, value, [*outer, _ramp(lane, self.isa.lanes)])

    def _element(self, access: TensorLoad, *at: int) -> TensorLoad:
        """The first lane of `access` at (a, b, group, s, kt)."""
        ia, ib, group, s, kt = at
        places = zip(self.loops, (ia, ib, 0, group, s, kt), strict=True)
        chosen = {loop.loop_var: place for loop, place in places}
        indices = [substitute(substitute(i, self.values), chosen) for i in access.indices]
        return access.source[tuple(indices)]


def _loads(store: tirx.BufferStore) -> list[TensorLoad]:
    loads: list[TensorLoad] = []
    structural_walk(store.value, (TensorLoad, loads.append))
    return loads


def _ramp(start, lanes: int) -> tirx.Ramp:
    start = tirx.const(start, "int32") if isinstance(start, int) else start
    return tirx.Ramp(start, tirx.const(1, "int32"), lanes)


def _vector(element: TensorLoad, lanes: int):
    *outer, last = element.indices
    return element.source[(*outer, _ramp(last, lanes))]
