"""AMX: the matrix multiply-accumulate instructions on two-dimensional tile registers.

A tile register holds up to 16 rows of 64 bytes. `tdpbusd` and its sisters compute, for a tile A of
rows x 64 bytes, B of 16 k steps x 16 columns x 4 bytes and C of rows x 16 int32,

    C[i, n] += sum over k4 < 16, kt < 4 of A[i, 4 * k4 + kt] * B[k4, n, kt]

Tile registers are not vectors: their numbers are immediates and no compiler allocates them. So the
nest of loops that means one step is replaced by the instructions, and the accumulators live in the
registers from the first step to the last.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.s_tir import SBlock, SBlockRealize
from tvm_ffi import structural_map, structural_walk

from lpgen.tir.rewrite import axis_values, like, loads, replace_nest, substitute

PALETTE_BYTES = 64
TILES = 8
MULTIPLY = {
    ("uint8", "int8"): "llvm.x86.tdpbusd",
    ("int8", "uint8"): "llvm.x86.tdpbsud",
    ("int8", "int8"): "llvm.x86.tdpbssd",
    ("uint8", "uint8"): "llvm.x86.tdpbuud",
}


@dataclass(frozen=True)
class TileStep:
    """One step: `down` x `across` accumulators of `rows` x 16, over `groups` k steps.

    left_stride, right_stride: bytes from row to row of a left tile and from k step to k step of
    a right one; signs: the dtypes of the two sides.
    """

    down: int
    across: int
    rows: int
    groups: int
    left_stride: int
    right_stride: int
    signs: tuple[str, str]

    @property
    def accumulators(self) -> int:
        """Tile registers that accumulate; after them come `down` left tiles and the right ones."""
        return self.down * self.across

    def palette(self) -> list[int]:
        """The 64 bytes that ldtilecfg loads: palette 1, bytes a row and rows of each register."""
        sizes = [(64, self.rows)] * self.accumulators + [(4 * self.groups, self.rows)] * self.down
        sizes += [(64, self.groups)] * (TILES - len(sizes))
        data = [0] * PALETTE_BYTES
        data[0] = 1
        for tile, (row_bytes, rows) in enumerate(sizes):
            data[16 + 2 * tile], data[48 + tile] = row_bytes, rows
        return data


def use_tiles(func: tirx.PrimFunc, step: TileStep) -> tirx.PrimFunc:
    """`func` with the blocks "tile_init" and "tile_update" as tile instructions.

    The six innermost loops around "tile_update" have to be one step: down, across, rows, columns,
    k steps and bytes. The body of the parallel loop around them configures the tile registers and,
    at its end, releases them.
    """
    body = replace_nest(func.body, "tile_init", lambda loops, realize: _zero(step))
    body = replace_nest(
        body, "tile_update", lambda loops, realize: _reduction(step, loops, realize)
    )
    return func.with_body(structural_map(body, (tirx.For, lambda loop: _configured(step, loop))))


def _zero(step: TileStep) -> tirx.Stmt:
    zeros = [_emit("llvm.x86.tilezero", i) for i in range(step.accumulators)]
    return tirx.SeqStmt(zeros) if len(zeros) > 1 else zeros[0]


def _reduction(step: TileStep, loops: list[tirx.For], realize: SBlockRealize) -> tirx.Stmt:
    """The loops over k around one step, and the stores of the accumulators behind them."""
    store = realize.block.body
    left, right = loads(store)
    tile = store.buffer[tuple(store.indices)]
    down, across, *rest = loops[-6:]
    values = axis_values(realize)

    def element(access: TensorLoad, places: dict) -> TensorLoad:
        at = {loop.loop_var: place for loop, place in places.items()}
        indices = [substitute(substitute(index, values), at) for index in access.indices]
        return access.source[tuple(indices)]

    def first(access: TensorLoad, mi: int, nv: int) -> TensorLoad:
        """The first element that the tile at (mi, nv) takes of `access`."""
        return element(access, {down: mi, across: nv, **dict.fromkeys(rest, 0)})

    body = tirx.SeqStmt(list(_step(step, left, right, first)))
    for loop in reversed(loops[:-6]):
        body = tirx.For(loop.loop_var, 0, loop.extent, loop.kind, body)
    stores = [
        _move("llvm.x86.tilestored64", mi * step.across + nv, first(tile, mi, nv), step.across * 64)
        for mi in range(step.down)
        for nv in range(step.across)
    ]
    # The whole tile is stored, also rows and columns that are empty and that nobody reads.
    last = element(tile, {loop: int(loop.extent) - 1 for loop in loops[-6:]})
    return tirx.SeqStmt([body, _touch(first(tile, 0, 0)), _touch(last), *stores])


def _step(step: TileStep, left, right, first: Callable) -> Iterator[tirx.Stmt]:
    load = "llvm.x86.tileloadd64"
    first_left = step.accumulators
    first_right = first_left + step.down
    yield _touch(first(left, 0, 0))
    yield _touch(first(right, 0, 0))
    for mi in range(step.down):
        yield _move(load, first_left + mi, first(left, mi, 0), step.left_stride)
    for nv in range(step.across):
        # Right tiles take turns in the registers that remain, so that one loads under the other.
        tile = first_right + nv % (TILES - first_right)
        yield _move(load, tile, first(right, 0, nv), step.right_stride)
        for mi in range(step.down):
            yield _emit(MULTIPLY[step.signs], mi * step.across + nv, first_left + mi, tile)


def _configured(step: TileStep, loop: tirx.For) -> tirx.Stmt:
    names: list[str] = []
    structural_walk(loop.body, (SBlock, lambda block: names.append(block.name_hint)))
    if loop.kind != tirx.ForKind.PARALLEL or "y" not in names:
        return loop
    words = np.array(step.palette(), np.uint8).view(np.int32)
    palette = tirx.decl_buffer((words.size,), "int32", name="palette")
    stores = [tirx.BufferStore(palette, int(word), [i]) for i, word in enumerate(words)]
    body = tirx.SeqStmt([
        tirx.AllocBuffer(palette),
        *stores,
        _emit("llvm.x86.ldtilecfg", tirx.address_of(palette[0])),
        loop.body,
        _emit("llvm.x86.tilerelease"),
    ])  # fmt: skip
    return like(loop, body)


def _touch(element: TensorLoad) -> tirx.Stmt:
    """A read that says the buffer is in use here, up to this element, and then disappears.

    Taking an address does not say so: CompactBufferAllocation would cut off what nobody reads, and
    StorageRewrite would give the memory to another buffer.
    """
    return tirx.Evaluate(element)


def _move(name: str, tile: int, element: TensorLoad, stride: int) -> tirx.Stmt:
    return _emit(name, tile, tirx.address_of(element), tirx.const(stride, "int64"))


def _emit(name: str, *args) -> tirx.Stmt:
    """One instruction; numbers of tiles are immediates of 8 bits."""
    operands = [tirx.const(arg, "int8") if isinstance(arg, int) else arg for arg in args]
    return tirx.Evaluate(tirx.call_llvm_intrin("void", name, *operands))
