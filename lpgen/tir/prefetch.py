"""Software prefetch of packed weights that stream by once.

A product of few rows reads each weight once, as fast as memory delivers. The hardware prefetcher
stops at every 4 KiB page; asking for the line some KiB ahead keeps it going (measured on products
of one row: 20 to 80 % for 1 and 2-bit weights out of DRAM).
"""

from tvm import tirx
from tvm.s_tir import SBlockRealize
from tvm.sym import Analyzer
from tvm_ffi import structural_map

from lpgen.tir.rewrite import axis_values, like, substitute

LINE = 64


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
