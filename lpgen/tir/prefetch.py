"""Software prefetch of packed weights.

A product of few rows reads each weight once, as fast as memory delivers. The hardware prefetcher
stops at every 4 KiB page; asking for the line some KiB ahead keeps it going (measured on products
of one row: 20 to 80 % for 1 and 2-bit weights out of DRAM).

A product of more rows reads a panel of weights once for each tile of rows: the first time it waits
for what lies beyond the L2 cache. While it works on a panel it asks for the next one, a little at
each step, so that all of the time is there for it (one thread of Zen 4, 2026-11-28, 3x3 256@14,
words in 3.8 MB: 357 us from L2, 424 from DRAM, 384 so; nothing is lost where weights are in L2).
Products of sums read two parts of a panel in turns: it is taken as a whole.
"""

import math
from collections.abc import Sequence

import numpy as np
from tvm import tirx
from tvm.s_tir import SBlockRealize
from tvm.sym import Analyzer
from tvm_ffi import structural_map

from lpgen.tir.rewrite import axis_values, like, substitute, uses

LINE = 64

WORTH = 2**15
"""Bytes of weights from which on they are asked for panel by panel: more than an L1 cache."""

TILES = range(3, 65)
"""Tiles of rows with which the next panel is asked for. Of more the first takes hardly any of the
time; two are done before as many bytes come out of memory, and so many requests are in the way of
others (3x3 512@7, u4 x s4: 347 us from memory, 388 so). Of panels that are read in parts, as
products of sums do, which take longer over a byte, two are enough (3x3 256@14, u8 x s8: 559 us from
memory, 441 so)."""

AHEAD = 4096
"""Bytes in front of a loop over k that are asked for where nothing else was measured."""


def prefetch_weights(func: tirx.PrimFunc, sections: set[str], ahead: int) -> tirx.PrimFunc:
    """`func` with a prefetch `ahead` bytes in front of each vector that the innermost loop over k
    reads from a buffer named in `sections`. An address may lie behind the buffer: a prefetch never
    faults.
    """
    done: list[tirx.For] = []

    def visit(loop: tirx.For) -> tirx.For:
        if done or loop.kind != tirx.ForKind.SERIAL:
            return loop
        places = _vectors_read(loop, sections)
        if not places:
            return loop
        done.append(loop)
        per_iteration = len(places) * LINE
        steps = -(-ahead // per_iteration)
        hints = [
            hint(substitute(place, {loop.loop_var: loop.loop_var + steps})) for place in places
        ]
        body = tirx.SeqStmt([*hints, loop.body])
        return like(loop, body)

    return func.with_body(structural_map(func.body, (tirx.For, visit)))


def prefetch_next(func: tirx.PrimFunc, sections: set[str]) -> tirx.PrimFunc:
    """`func` with a prefetch in each step of the innermost loop over k, for each buffer named in
    `sections` that the loop reads: all tiles of rows together ask for as many bytes as they read,
    those that lie behind the panel, or the panels, that they share. `func` itself where so few or
    so many share any that it does not pay.
    """
    loops, places = _stream(func.body, (), sections)
    if not all(isinstance(loop.extent, tirx.IntImm) for loop in loops):
        return func
    at = [index for place in places for index in place.indices]
    shared = [not any(uses(index, loop.loop_var) for index in at) for loop in loops]
    first = len(loops)
    while first and (not shared[first - 1] or _count(loops[first - 1 : first]) == 1):
        first -= 1
    panel, outer = loops[first:], first
    while outer and shared[outer - 1] and loops[outer - 1].kind == tirx.ForKind.SERIAL:
        outer -= 1
    tiles = loops[outer:first]
    hints = [hint(place) for place in _next(panel, tiles, loops[:outer], places)]
    if not hints:
        return func

    def visit(loop: tirx.For) -> tirx.For:
        innermost = loop.loop_var.same_as(loops[-1].loop_var)
        return like(loop, tirx.SeqStmt([*hints, loop.body])) if innermost else loop

    return func.with_body(structural_map(func.body, (tirx.For, visit)))


def _next(
    panel: Sequence[tirx.For],
    tiles: Sequence[tirx.For],
    outside: Sequence[tirx.For],
    places: Sequence,
) -> list:
    """What the steps of the loops `panel`, in each of those over `tiles`, ask for: elements behind
    the panel, one after the other, as many lines at a time as it takes. places: what a step reads;
    outside: the loops around, of which the last one that counts goes from panel to panel."""
    number = tirx.const(0, "int32")
    for loop in (*tiles, *panel):
        number = number * loop.extent + loop.loop_var
    found = []
    firsts = {place.source.name: place for place in reversed(places)}
    for place in firsts.values():
        buffer = place.source
        size, itemsize = math.prod(map(int, buffer.shape)), np.dtype(str(buffer.dtype)).itemsize
        if size * itemsize < WORTH:
            continue
        starts = {loop.loop_var: 0 for loop in panel}
        start = [substitute(index, starts) for index in place.indices]
        behind = next(filter(None, (_step(start, buffer, loop) for loop in reversed(outside))), 0)
        step = _step(place.indices, buffer, panel[-1]) if panel else 0
        if not step or not behind:
            continue
        parts = behind // (step * _count(panel))
        if _count(tiles) not in TILES and not (parts > 1 and _count(tiles) == TILES.start - 1):
            continue
        each = -(-behind // (_count(tiles) * _count(panel)))
        for line in range(0, each * itemsize, LINE):
            at = [*start[:-1], start[-1] + behind + number * each + line // itemsize]
            found.append(buffer[tuple(at)])
    return found


def _step(indices: Sequence[tirx.Expr], buffer, loop: tirx.For) -> int:
    """Elements by which a loop moves a place, 0 where it does not, or not by a number."""
    second = [substitute(index, {loop.loop_var: loop.loop_var + 1}) for index in indices]
    step = Analyzer().simplify(_flat(second, buffer.shape) - _flat(indices, buffer.shape))
    return int(step) if isinstance(step, tirx.IntImm) else 0


def _flat(indices: Sequence[tirx.Expr], shape: Sequence) -> tirx.Expr:
    """The number of an element of an array."""
    total = tirx.const(0, "int32")
    for index, extent in zip(indices, shape, strict=True):
        total = total * extent + index
    return total


def _count(loops: Sequence[tirx.For]) -> int:
    return math.prod(int(loop.extent) for loop in loops)


def _stream(
    statement: tirx.Stmt, loops: tuple[tirx.For, ...], sections: set[str]
) -> tuple[tuple[tirx.For, ...], list]:
    """The loops around the first one over k whose steps read from the sections, that included, and
    the first element of each vector that such a step reads; both empty where there is none."""
    inner: Sequence[tirx.Stmt] = ()
    if isinstance(statement, tirx.For):
        loops = (*loops, statement)
        serial = statement.kind == tirx.ForKind.SERIAL
        if serial and (places := _vectors_read(statement, sections)):
            return loops, places
        inner = [statement.body]
    elif isinstance(statement, tirx.SeqStmt):
        inner = list(statement.seq)
    elif isinstance(statement, SBlockRealize):
        inner = [statement.block.body]
    found = (_stream(each, loops, sections) for each in inner)
    return next((one for one in found if one[1]), ((), []))


def _vectors_read(loop: tirx.For, sections: set[str]) -> list:
    """The first element of each vector that one iteration of `loop` reads from the sections."""
    names: list[str] = []
    places: dict[str, tirx.Expr] = {}

    def collect(statement: tirx.Stmt, unrolled: dict) -> None:
        if isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.VECTORIZED:
            collect(statement.body, {**unrolled, statement.loop_var: 0})
        elif isinstance(statement, tirx.For):
            if statement.kind == tirx.ForKind.UNROLLED or int(statement.extent) == 1:
                for i in range(int(statement.extent)):
                    collect(statement.body, {**unrolled, statement.loop_var: i})
        elif isinstance(statement, tirx.SeqStmt):
            for inner in statement.seq:
                collect(inner, unrolled)
        elif isinstance(statement, SBlockRealize):
            names.append(statement.block.name_hint)
            for place in _first_elements(statement, sections):
                place = analyzer.rewrite_simplify(substitute(place, unrolled))
                places.setdefault(str(place), place)

    analyzer = Analyzer()
    collect(loop.body, {})
    multiplies = any(name.startswith(("tile_update", "partial_update")) for name in names)
    return list(places.values()) if multiplies else []


def _first_elements(realize: SBlockRealize, sections: set[str]) -> list:
    block, values = realize.block, axis_values(realize)
    found = []
    for region in block.reads:
        if region.source.name in sections:
            at = [substitute(extent.min, values) for extent in region.region]
            found.append(region.source[tuple(at)])
    return found


def hint(element) -> tirx.Stmt:
    """The prefetch of the line that holds `element`."""
    # Read, keep in all caches, data; see llvm.prefetch in the LLVM language reference.
    flags = [tirx.const(value, "int32") for value in (0, 3, 1)]
    call = tirx.call_llvm_intrin("void", "llvm.prefetch.p0", tirx.address_of(element), *flags)
    return tirx.Evaluate(call)
