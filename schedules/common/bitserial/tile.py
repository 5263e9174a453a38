"""The register tile of the bitserial algorithm as straight-line vector code.

For every row and vector of columns there is a tree of carry-save adders (`carry_save`) with
counters behind it (`bit_counts`). `words` words of k are one piece of straight-line code; between
pieces the counters lie in buffers, which LLVM keeps in registers as far as they go.

How much a counter of bytes has to hold follows from the operator. The vectors that reach it at
level l weigh 2^l; W words bring at most W * (2^a - 1) * (2^w - 1) / 2^l of them that have a bit at
any one place. Where that is too much for all of k, the counters are added to wider ones at the end
of every piece.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.sym import Analyzer
from tvm.tirx.script import builder as tb

from lpgen.algorithms.lhs.k_split import KSplit
from lpgen.schedules.common.bitserial.carry_save import Adders, Tree
from lpgen.schedules.common.bitserial.counts import Counting
from lpgen.tir import vectors as vec
from lpgen.tir.microkernel import Access, Site, for_k_steps


@dataclass(frozen=True)
class Plan:
    """What the code of a tile depends on.

    planes: (left, right) bit planes, of weight 2^(p + q); low: weight of the result, 2^low;
    direct: whether the left side lies as the input does, else by tile;
    levels: of carry-save adders; words: of one piece of straight-line code.
    """

    counting: Counting
    cut: KSplit
    planes: tuple[int, int]
    low: int
    xor: bool
    direct: bool
    rows: int
    vectors: int
    levels: int
    words: int

    def most(self, words: int, carried: bool) -> int:
        """Vectors with a bit at one place that `words` words bring to the counter; carried: the
        adders may hold something before."""
        p, q = self.planes
        weight = words * ((1 << p) - 1) * ((1 << q) - 1)
        return (weight + carried * ((1 << self.levels) - 1)) >> self.levels

    @property
    def piece(self) -> int:
        """Words of the longest piece."""
        return min(self.words, self.cut.steps)

    @property
    def straight(self) -> int:
        """Words in straight-line code: all pieces that do not share a loop's body."""
        c, size = self.cut, self.words
        if c.kg >= size or c.r * c.s == 1:
            return min(c.kg, size + c.kg % size)
        return c.s * c.kg if c.s * c.kg >= size or c.r == 1 else c.steps

    @property
    def products(self) -> int:
        """Products in straight-line code."""
        return self.straight * self.planes[0] * self.planes[1] * self.rows * self.vectors

    @property
    def single(self) -> bool:
        """Whether all of k is one piece."""
        return self.cut.steps <= self.words

    @property
    def widening(self) -> bool:
        """Whether counters are too small for all of k."""
        holds = self.counting.holds
        return holds is not None and self.most(self.cut.steps, False) > holds

    def overflow(self) -> str | None:
        """Why the counters cannot hold a piece."""
        most = self.most(self.piece, not self.single)
        if self.widening and most > self.counting.holds:
            counter = "16 bits" if self.counting.halves else "a byte"
            return f"{most} counts of up to 8 overflow {counter} within {self.piece} words"
        return None

    @property
    def largest(self) -> int:
        """What a result is at most."""
        p, q = self.planes
        return self.cut.steps * self.counting.word * ((1 << p) - 1) * ((1 << q) - 1)


def emit_tile(p: Plan) -> Callable[[Site], None]:
    """The function that emits the tile, for `replace_tile`."""

    def emit(site: Site) -> None:
        adders, left = Adders(p.counting.isa, p.xor), _Left(site.sources["encode"], p)
        places = [[_Place(p, adders) for _ in range(p.vectors)] for _ in range(p.rows)]

        def piece(groups: list[tuple]) -> None:
            for row in places:
                for place in row:
                    place.enter()
            _products(p, site, left, places, groups)
            for row in places:
                for place in row:
                    place.leave()

        for_k_steps((p.cut.r, p.cut.s, p.cut.kg), p.words, piece)
        lanes, repeat = p.counting.isa.lanes, p.counting.repeat
        for mi, row in enumerate(places):
            for v, place in enumerate(row):
                for b, value in enumerate(place.total()):
                    value = value << vec.splat(p.low, "int32", lanes) if p.low else value
                    at = site.target.at(mi=mi, nv=v * repeat + b)
                    vec.store(site.target.buffer, at, value, lanes)

    return emit


class _Left:
    """The elements of the left side.

    Where they lie as the input does (`direct`), a row's place takes divisions: which line, which
    pixel. It is computed once for a tile, into memory. That the largest of an index and 0 is the
    index, LLVM knows; TVM does not look into the call, and is spared the comparison of all places
    with each other when it asks which part of a buffer is in use.
    """

    def __init__(self, access: Access, p: Plan) -> None:
        self.access, self.lanes, self.direct = access, p.counting.isa.lanes, p.direct
        self._bare = replace(access, outer={})
        if not p.direct:
            return
        self._origin = self._flat(self._bare.at())
        self._places = vec.scratch((p.rows,), "int32")
        for mi in range(p.rows):
            tb.buffer_store(self._places, self._flat(access.at(mi=mi)), [mi])

    def _flat(self, indices: list) -> tirx.Expr:
        """The indices as one, that of the buffer's elements in a row."""
        place = indices[0]
        for extent, index in zip(self.access.buffer.shape[1:], indices[1:], strict=True):
            place = place * extent + index
        return place

    def __call__(self, mi: int, group: tuple, plane: int) -> tirx.Var:
        """Element `plane` of the k step of row `mi`, in every lane."""
        value = vec.splat(
            self.access.buffer[tuple(self._at(mi, group, plane))], "uint32", self.lanes
        )
        return vec.bind(vec.reinterpret(f"int32x{self.lanes}", value))

    def _at(self, mi: int, group: tuple, plane: int) -> list:
        """The indices of an element."""
        r, s, kg = group
        at = self.access.at(mi=mi, r=r, s=s, kg=kg, a0=plane)
        if self.direct:
            distance = self._flat(self._bare.at(r=r, s=s, kg=kg, a0=plane)) - self._origin
            place = self._places[mi] + distance
            opaque = vec.intrinsic("int32", "llvm.umax.i32", place, vec.const(0))
            at = [0] * (len(at) - 1) + [opaque]
        return at

    def several(self, mi: int, groups: list[tuple]) -> Callable[[int], tirx.Var]:
        """What gives element 0 of one of the k steps `groups` of row `mi` in every lane; those that
        are neighbours are loaded at once."""
        count = len(groups)
        places = [self._flat(self._bare.at(r=r, s=s, kg=kg)) for r, s, kg in groups]
        analyzer = Analyzer()
        near = (analyzer.can_prove_equal(q - places[0], i) for i, q in enumerate(places))
        if count == 1 or not all(near):
            return lambda i: self(mi, groups[i], 0)
        first = self._at(mi, groups[0], 0)
        if not self.direct:
            first = [0] * (len(first) - 1) + [self._flat(first)]
        words = vec.load(self.access.buffer, first, count)
        words = vec.bind(vec.reinterpret(f"int32x{count}", words))
        parts = [words] * -(-self.lanes // count)
        return lambda i: vec.bind(vec.joined(parts, [i] * self.lanes))


def _products(
    p: Plan, site: Site, left: _Left, places: list[list["_Place"]], groups: list[tuple]
) -> None:
    """All products of the words `groups`, two words at a time: adders take two products."""
    words, lanes = site.sources["words"], p.counting.isa.lanes

    def weight(group, q: int, v: int):
        r, s, kg = group
        at = words.at(r=r, s=s, kg=kg, a1=q, nv=v * p.counting.repeat)
        vector = vec.load(words.buffer, at, lanes * p.counting.repeat)
        return vec.bind(vec.reinterpret(f"int32x{lanes}", vector))

    planes, right = p.planes
    if not p.levels and p.counting.isa.counts_bytes:
        _counted_at_once(p, left, weight, places, groups)
        return
    for start in range(0, len(groups), 2):
        pair = groups[start : start + 2]
        w = {
            (i, q, v): weight(group, q, v)
            for q in range(right)
            for v in range(p.vectors)
            for i, group in enumerate(pair)
        }
        for mi, plane in itertools.product(range(p.rows), range(planes)):
            x = [left(mi, group, plane) for group in pair]
            for q, v in itertools.product(range(right), range(p.vectors)):
                for i, value in enumerate(x):
                    places[mi][v].tree.push_product(plane + q, value, w[i, q, v])


def _counted_at_once(
    p: Plan,
    left: _Left,
    weight: Callable,
    places: list[list["_Place"]],
    groups: list[tuple],
) -> None:
    """Products of single planes that no adders take, word after word: few values wait, and the left
    side comes in vectors of up to four words."""
    for start in range(0, len(groups), 4):
        run = groups[start : start + 4]
        rows = [left.several(mi, run) for mi in range(p.rows)]
        for i, group in enumerate(run):
            words = [weight(group, 0, v) for v in range(p.vectors)]
            for row, several in zip(places, rows, strict=True):
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
