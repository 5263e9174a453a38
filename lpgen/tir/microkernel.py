"""Microkernels: blocks of a scheduled function replaced by generated straight-line vector code.

A definition says in tensor expressions what is computed; a schedule places its stages and orders
its blocks. What remains inside of a register tile (the block "tile" with its reduction) or of one
row of the encoded left side (the block "encode") is too particular for loop transformations: those
loops are cut out, and a Python function emits instructions for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import SBlockRealize
from tvm.script.ir_builder import IRBuilder
from tvm.sym import Analyzer
from tvm.tirx.script import builder as tb

from lpgen.tir.rewrite import like, loads, replace_nest, substitute, uses

Index = int | tirx.Expr


@dataclass(frozen=True)
class Access:
    """An access of the block that is replaced, to be repeated at other values of its axes.

    axes: the block's axis variables by name; outer: what those outside of the cut loops stand for.
    """

    buffer: tirx.Var
    indices: tuple
    axes: dict[str, tirx.Var]
    outer: dict[str, tirx.Expr]

    def at(self, tail: Sequence[Index] = (), **values: Index) -> list:
        """The indices at these values of the axes (0 for those not named), the last ones replaced
        by `tail`."""
        chosen = {var: values.get(name, self.outer.get(name, 0)) for name, var in self.axes.items()}
        kept = self.indices[: len(self.indices) - len(tail)]
        analyzer = Analyzer()
        return [*(analyzer.rewrite_simplify(substitute(i, chosen)) for i in kept), *tail]

    def region(self) -> tirx.Expr:
        """What all the accesses together read: points where only loops outside decide."""
        outside = [self.axes[name] for name in self.outer]
        inside = [var for var in self.axes.values() if not any(var.same_as(o) for o in outside)]
        places = []
        for index, point, extent in zip(self.indices, self.at(), self.buffer.shape, strict=True):
            free = any(uses(index, var) for var in inside)
            places.append(slice(0, extent) if free else slice(point, point + 1))
        return self.buffer[tuple(places)]


@dataclass(frozen=True)
class Site:
    """Where generated code goes.

    target: the access that is stored; sources: those that are read, by the name of their buffer.
    """

    target: Access
    sources: dict[str, Access]


TILE_AXES = ("g", "mo", "no", "mi", "nv", "nl", "r", "s", "kg")
"""Names of the axes of a block "tile"; those behind them are named a0, a1, ..."""


def replace_tile(
    func: tirx.PrimFunc,
    emit: Callable[[Site], None],
    block: str = "tile",
    axes: Sequence[str] = TILE_AXES,
    outside: Sequence[str] = TILE_AXES[:3],
) -> tirx.PrimFunc:
    """`func` with the loops r, s, kg, ... around the block "tile" replaced by what `emit` emits.

    Before, nothing of the block is decomposed, and the stage "y" is computed inside of the loop
    over tiles. `emit` stores the whole tile (`site.target`).
    block, axes, outside: another block, the names of its axes and of those of loops that stay.
    """

    def make(loops: list[tirx.For], realize: SBlockRealize) -> tirx.Stmt:
        return _generated(_named_site(realize, axes, outside), emit)

    return func.with_body(replace_nest(func.body, block, make))


def site_of(func: tirx.PrimFunc, block: str, axes: Sequence[str], outside: Sequence[str]) -> Site:
    """The site that `replace_tile` would hand on for the block; nothing is replaced."""
    found: list[Site] = []

    def make(loops: list[tirx.For], realize: SBlockRealize) -> tirx.Stmt:
        found.append(_named_site(realize, axes, outside))
        return loops[0]

    replace_nest(func.body, block, make)
    return found[0]


def _named_site(realize: SBlockRealize, axes: Sequence[str], outside: Sequence[str]) -> Site:
    variables = [axis.var for axis in realize.block.iter_vars]
    names = [*axes, *(f"a{i}" for i in range(len(variables) - len(axes)))]
    values = dict(zip(names, realize.iter_values, strict=True))
    outer = {name: values[name] for name in outside}
    return _site(realize, dict(zip(names, variables, strict=True)), outer)


def replace_encode(
    func: tirx.PrimFunc, emit: Callable[[Site, int], None], elements: int, rows: bool = False
) -> tirx.PrimFunc:
    """`func` with the loops over k steps, their `elements` axes and t around the block "encode"
    replaced by what `emit(site, k steps)` emits.

    Those loops have to be the innermost. The axes of the site are kg, e0, e1, ... and t; the others
    stand for what the loops around give. rows: behind kg comes the loop over a tile's rows, mi, and
    is replaced as well.
    """
    labels = ["kg", *(["mi"] if rows else []), *(f"e{i}" for i in range(elements)), "t"]
    inner = len(labels)

    def make(loops: list[tirx.For], realize: SBlockRealize) -> tirx.Stmt:
        cut = dict(zip(labels, loops[-inner:], strict=True))
        axes, outer = {}, {}
        for i, (axis, value) in enumerate(
            zip(realize.block.iter_vars, realize.iter_values, strict=True)
        ):
            name = next((n for n, loop in cut.items() if uses(value, loop.loop_var)), f"o{i}")
            axes[name] = axis.var
            if name not in cut:
                outer[name] = value
        count = int(cut["kg"].extent)
        body = _generated(_site(realize, axes, outer), lambda site: emit(site, count))
        for loop in reversed(loops[:-inner]):
            body = like(loop, body)
        return body

    return func.with_body(replace_nest(func.body, "encode", make))


def _site(realize: SBlockRealize, axes: dict, outer: dict) -> Site:
    store = realize.block.body
    sources = {
        load.source.name: Access(load.source, tuple(load.indices), axes, outer)
        for load in loads(store)
    }
    return Site(Access(store.buffer, tuple(store.indices), axes, outer), sources)


def _generated(site: Site, emit: Callable[[Site], None]) -> tirx.Stmt:
    with IRBuilder() as builder:
        with tb.sblock("generated"):
            # Said once for each buffer, so that no pass asks each of thousands of accesses.
            tb.reads([access.region() for access in site.sources.values()])
            tb.writes([])
            tb.sblock_attr({"explicit_read_region": list(range(len(site.sources)))})
            emit(site)
    return builder.get()


def for_k_steps(
    extents: tuple[int, int, int], size: int, body: Callable[[list[tuple]], None]
) -> None:
    """Emit `body` for all k steps in order, `size` at a time (fewer at the end of a run).

    extents: of the axes r, s and kg. body takes [(r, s, kg), ...]. Long runs become loops; runs
    shorter than `size` follow each other in straight-line code, first the taps of a kernel row,
    then the rows.
    """
    rows, columns, count = extents
    if count >= size or rows * columns == 1:
        with tb.serial(0, rows) as r, tb.serial(0, columns) as s:
            whole = count // size
            if whole:
                with tb.serial(0, whole) as ko:
                    body([(r, s, ko * size + i) for i in range(size)])
            if count % size:
                body([(r, s, i) for i in range(whole * size, count)])
    elif columns * count >= size or rows == 1:
        with tb.serial(0, rows) as r:
            _straight([(r, s, kg) for s in range(columns) for kg in range(count)], size, body)
    else:
        taps = [(r, s) for r in range(rows) for s in range(columns)]
        _straight([(*tap, kg) for tap in taps for kg in range(count)], size, body)


def _straight(groups: list[tuple], size: int, body: Callable[[list[tuple]], None]) -> None:
    for start in range(0, len(groups), size):
        body(groups[start : start + size])
