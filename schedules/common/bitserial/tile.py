"""The register tile of the bitserial algorithm as straight-line vector code.

For every row and vector of columns there is a tree of carry-save adders (`carry_save`) with
counters behind it (`counts`). `words` words of k are one piece of straight-line code; between
pieces the counters lie in buffers, which LLVM keeps in registers as far as they go.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from tvm import tirx
from tvm.sym import Analyzer
from tvm.tirx.script import builder as tb

from lpgen.ops import Conv2d, Dense
from lpgen.schedules.common.bitserial.carry_save import Adders, Tree
from lpgen.schedules.common.bitserial.plan import Plan
from lpgen.schedules.common.inside import Taps, for_places
from lpgen.schedules.common.places import RowPlaces, flat
from lpgen.tir import vectors as vec
from lpgen.tir.microkernel import Access, Site, for_k_steps


def emit_tile(op: Dense | Conv2d, p: Plan) -> Callable[[Site], None]:
    """The function that emits the tile, for `replace_tile`."""

    def emit(site: Site) -> None:
        if p.inside:
            for_places(op, p.rows, site.target.outer["mo"], lambda taps: emit_sums(site, taps))
        else:
            emit_sums(site, None)

    def emit_sums(site: Site, taps: Taps | None) -> None:
        adders, left = Adders(p.counting.isa, p.xor), _Left(site.sources["encode"], p)
        places = [[_Place(p, adders) for _ in range(p.vectors)] for _ in range(p.rows)]

        def piece(groups: list[tuple], rows: Sequence[int] = range(p.rows)) -> None:
            reached = [place for mi in rows for place in places[mi]]
            for place in reached:
                place.enter()
            _products(p, site, left, places, groups, rows)
            for place in reached:
                place.leave()

        if taps is None:
            for_k_steps((p.cut.r, p.cut.s, p.cut.kg), p.words, piece)
        else:
            _for_taps(taps, p, piece)
        lanes, repeat = p.counting.isa.lanes, p.counting.repeat
        for mi, row in enumerate(places):
            for v, place in enumerate(row):
                for b, value in enumerate(place.total()):
                    value = value << vec.splat(p.low, "int32", lanes) if p.low else value
                    at = site.target.at(mi=mi, nv=v * repeat + b)
                    vec.store(site.target.buffer, at, value, lanes)

    return emit


class _Left:
    """The elements of the left side."""

    def __init__(self, access: Access, p: Plan) -> None:
        self.access, self.lanes = access, p.counting.isa.lanes
        self._bare = replace(access, outer={})
        self._places = RowPlaces(access, range(p.rows)) if p.direct else access

    def __call__(self, mi: int, group: tuple, plane: int) -> tirx.Var:
        """Element `plane` of the k step of row `mi`, in every lane."""
        at = self._at(mi, group, plane)
        value = vec.splat(self.access.buffer[tuple(at)], "uint32", self.lanes)
        return vec.bind(vec.reinterpret(f"int32x{self.lanes}", value))

    def _at(self, mi: int, group: tuple, plane: int) -> list:
        """The indices of an element."""
        r, s, kg = group
        return self._places.at(mi=mi, r=r, s=s, kg=kg, a0=plane)

    def several(self, mi: int, groups: list[tuple]) -> Callable[[int], tirx.Var]:
        """What gives element 0 of one of the k steps `groups` of row `mi` in every lane; those that
        are neighbours are loaded at once."""
        count, shape = len(groups), self.access.buffer.shape
        places = [flat(shape, self._bare.at(r=r, s=s, kg=kg)) for r, s, kg in groups]
        analyzer = Analyzer()
        near = (analyzer.can_prove_equal(q - places[0], i) for i, q in enumerate(places))
        if count == 1 or not all(near):
            return lambda i: self(mi, groups[i], 0)
        first = self._at(mi, groups[0], 0)
        first = [0] * (len(first) - 1) + [flat(shape, first)]
        words = vec.load(self.access.buffer, first, count)
        words = vec.bind(vec.reinterpret(f"int32x{count}", words))
        parts = [words] * -(-self.lanes // count)
        return lambda i: vec.bind(vec.joined(parts, [i] * self.lanes))


def _for_taps(taps: Taps, p: Plan, piece: Callable[[list[tuple], Sequence[int]], None]) -> None:
    """Emit `piece` for the words of all taps inside, and the rows of the tile that each reaches.

    Where all taps of a row are straight-line code, the loop counts from 0: of a row's own number
    LLVM knows so much that it keeps what neighbouring taps have in common, more than there are
    registers for (256 channels, 14x14, w1a1 on Zen 4: 100 and not 91 us). Where the words of a tap
    are a loop, it would compute their addresses anew (512 channels, 7x7 on a Cortex-A53, modelled:
    264 and not 222 cycles an iteration).
    """

    def columns(r: tirx.Expr) -> None:
        for s, span in taps.columns.items():

            def words(groups: list[tuple], s: int = s, span: tuple = span) -> None:
                piece([(r, s, kg) for _, _, kg in groups], range(*span))

            for_k_steps((1, 1, p.cut.kg), p.words, words)

    if p.cut.kg > p.words:
        with taps.rows() as r:
            columns(r)
    else:
        with tb.serial(0, taps.count) as i:
            columns(taps.first + i)


def _products(
    p: Plan,
    site: Site,
    left: _Left,
    places: list[list["_Place"]],
    groups: list[tuple],
    rows: Sequence[int],
) -> None:
    """All products of the words `groups` in some rows of the tile, two words at a time: adders take
    two products."""
    words, lanes = site.sources["words"], p.counting.isa.lanes

    def weight(group, q: int, v: int):
        r, s, kg = group
        at = words.at(r=r, s=s, kg=kg, a1=q, nv=v * p.counting.repeat)
        vector = vec.load(words.buffer, at, lanes * p.counting.repeat)
        return vec.bind(vec.reinterpret(f"int32x{lanes}", vector))

    planes, right = p.planes
    if not p.levels and p.counting.isa.counts_bytes:
        _counted_at_once(p, left, weight, [(mi, places[mi]) for mi in rows], groups)
        return
    for start in range(0, len(groups), 2):
        pair = groups[start : start + 2]
        w = {
            (i, q, v): weight(group, q, v)
            for q in range(right)
            for v in range(p.vectors)
            for i, group in enumerate(pair)
        }
        for mi, plane in itertools.product(rows, range(planes)):
            x = [left(mi, group, plane) for group in pair]
            for q, v in itertools.product(range(right), range(p.vectors)):
                for i, value in enumerate(x):
                    places[mi][v].tree.push_product(plane + q, value, w[i, q, v])


def _counted_at_once(
    p: Plan,
    left: _Left,
    weight: Callable,
    places: list[tuple[int, list["_Place"]]],
    groups: list[tuple],
) -> None:
    """Products of single planes that no adders take, word after word, in the rows of `places`: few
    values wait, and the left side comes in vectors of up to four words."""
    for start in range(0, len(groups), 4):
        run = groups[start : start + 4]
        rows = [(row, left.several(mi, run)) for mi, row in places]
        for i, group in enumerate(run):
            words = [weight(group, 0, v) for v in range(p.vectors)]
            for row, several in rows:
                x = several(i)
                for place, w in zip(row, words, strict=True):
                    place.tree.push_product(0, x, w)


class _Place:
    """The counters of one row and vector: names inside of a piece, buffers between pieces."""

    def __init__(self, p: Plan, adders: Adders) -> None:
        self.plan, self.counting, self.adders = p, p.counting, adders
        self.counts: tirx.Expr | None = None
        self.tree: Tree | None = None
        if p.single:
            return
        lanes = p.counting.isa.lanes
        self._levels = [_zeros("int32", lanes) for _ in range(p.levels)]
        if p.widening:
            self._wide = [_zeros("int32", lanes) for _ in range(p.counting.repeat)]
        else:
            self._counts = _zeros(p.counting.dtype, p.counting.lanes)

    def _count(self, bits: tirx.Expr) -> None:
        self.counts = self.adders.names(self.counting.added(self.counts, bits))

    def enter(self) -> None:
        """Start a piece."""
        levels = [None] * self.plan.levels
        if not self.plan.single:
            levels = [_loaded(buffer) for buffer in self._levels]
            self.counts = None if self.plan.widening else _loaded(self._counts)
        self.tree = Tree(self.adders, levels, self._count)

    def leave(self) -> None:
        """End a piece."""
        self.tree.flush()
        if self.plan.single:
            return
        for buffer, value in zip(self._levels, self.tree.levels, strict=True):
            _store(buffer, value)
        if not self.plan.widening:
            _store(self._counts, self.counts)
        elif self.counts is not None:
            values = self.counting.widened([(self.plan.levels, self.counts)], self.plan.largest)
            for buffer, value in zip(self._wide, values, strict=True):
                _store(buffer, _loaded(buffer) + value)

    def total(self) -> list[tirx.Expr]:
        """The results, one vector for each word of a lane."""
        p, names = self.plan, self.adders.names
        if p.single:
            return self.counting.total(self.tree.levels, self.counts, p.largest, names)
        levels = [_loaded(buffer) for buffer in self._levels]
        if not p.widening:
            return self.counting.total(levels, _loaded(self._counts), p.largest, names)
        values = [_loaded(buffer) for buffer in self._wide]
        if not levels:
            return values
        held = self.counting.total(levels, None, p.counting.word << p.levels, names)
        return [value + more for value, more in zip(values, held, strict=True)]


def _zeros(dtype: str, lanes: int):
    buffer = vec.scratch((lanes,), dtype)
    vec.store(buffer, [0], vec.splat(0, dtype, lanes), lanes)
    return buffer


def _lanes(buffer) -> int:
    return int(buffer.shape[0])


def _loaded(buffer) -> tirx.Var:
    return vec.bind(vec.load(buffer, [0], _lanes(buffer)))


def _store(buffer, value) -> None:
    vec.store(buffer, [0], value, _lanes(buffer))
