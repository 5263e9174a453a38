"""The winograd algorithm: convolutions with fewer products, exact in integers (docs/winograd.md).

A tile of m x m' outputs of a kernel of r x r' taps takes (m + r - 1)(m' + r' - 1) products for each
pair of channels instead of m r m' r': the values under it and the kernel are transformed by small
integer matrices (`sides`), multiplied place by place, and the sums over the channels transformed
back. Codes of few bits stay bytes through both transformations, so that the products are those of
the dot-product instruction, and the result is an exact multiple of the sum. Others become words of
16 bits, products of two of which are added to int32 modulo 2^32:

    pad     the padded input, as large as whole register tiles read
    rows, weights   G g, and G g G^T of a panel, where the kernel's codes are stored
    down    B^T d
    patch   B^T d B modulo 256, plus an offset of its place that makes it a byte without sign, or
            in int16, of activations less their `centre`
    partial sums of pairs of products in int16, where the instruction set asks for chunks
    tile    for every place (p, q) a matrix product over the channels, or several where products
            share a place
    up      A^T M
    back    A^T M A
    y       that plus what undoes the offsets, divided by the scale, and the epilogue; of words
            what undoes the centre is added behind the division

A side of one output is not transformed: its taps are summed one by one (m = 1: 1-D filtering).
"""

from __future__ import annotations

from tvm import te, tirx

from lpgen.algorithms.definition import Definition, Sums, finish
from lpgen.algorithms.sections import placeholders
from lpgen.algorithms.winograd.crossed import Terms
from lpgen.algorithms.winograd.geometry import Geometry, Tiling
from lpgen.algorithms.winograd.products import products
from lpgen.algorithms.winograd.sides import Matrix
from lpgen.algorithms.winograd.tile import Tile
from lpgen.algorithms.winograd.weights import KernelCodes, TileWeights, TransformedWeights, pick
from lpgen.ops import Conv2d
from lpgen.tir.vectors import ROUNDING, ROUNDING_BITS


def why_not(op: Conv2d) -> str | None:
    """Why the algorithm does not serve the operator, whatever the tile."""
    if op.kind != "conv2d" or all(k <= s for k, s in zip(op.kernel, op.stride, strict=True)):
        return "there are no neighbouring taps to share products"
    if op.groups > 1:
        return f"groups={op.groups}: few channels would be summed for each transformation"
    if op.dilation != (1, 1):
        return f"dilation={'x'.join(map(str, op.dilation))}: tiles need neighbouring taps"
    return None


def define(op: Conv2d, tile: Tile, tiling: Tiling) -> Definition[Geometry, TileWeights]:
    """The tensor expressions of `op`: the stages above."""
    geometry = Geometry(tile, tiling)
    kind = KernelCodes if tiling.codes else TransformedWeights
    weights = kind(tile, geometry.steps, tiling.vectors, tiling.lanes, tiling.crossed)
    sections = placeholders(weights.sections)
    *stored, start = sections
    column_terms = stored.pop() if tile.words and tiling.crossed else None
    main = _weights(geometry, weights, stored) if tiling.codes else stored[0]
    patch = _patch(geometry, _pad(geometry))
    terms = Terms(geometry, patch).define() if tiling.crossed else None
    back = _back(geometry, products(geometry, patch, main))
    high, wide, panel = tile.high, tile.wide, weights.panel

    def at(image, h, w, n):
        row, column = h // high.outputs, w // wide.outputs
        place = (row // tiling.rows, column // tiling.columns, n // panel)
        inside = (row % tiling.rows, column % tiling.columns)
        lane = (n % panel // tiling.lanes, n % tiling.lanes)

        i, j = h % high.outputs, w % wide.outputs
        total = back[(image, *place, i, j, *inside, *lane)]
        if terms is not None:  # first, as its stages have to be
            total = terms[(image, *place[:2], i, j, *inside)] + total
        if tile.words:
            total = total if column_terms is None else total + column_terms[i, j, n]
            return _divided_modulo(total, tile.scale) + start[i, j, n]
        return _divided(total + start[i, j, n], tile.scale)

    def place(image, h, w, n):
        return (image * op.oh + h) * op.ow + w, 0, n

    sums = Sums((op.n, op.oh, op.ow, op.oc), 1, op.oc, at, place)
    return finish(op, geometry, weights, sections, sums, zero=op.zero_act)


def _pad(geometry: Geometry) -> te.Tensor:
    op, x = geometry.tile.op, geometry.x
    top, left = op.pad[:2]
    zero = tirx.const(op.zero_act % 256, "uint8")

    def value(image, h, w, k):
        inside = tirx.all(h >= top, h < top + op.h, w >= left, w < left + op.w, k < op.ic)
        return te.if_then_else(inside, x[image, h - top, w - left, k], zero)

    return te.compute((op.n, *geometry.read, geometry.steps * geometry.tile.kq), value, name="pad")


def _patch(geometry: Geometry, pad: te.Tensor) -> te.Tensor:
    """patch[image, row tile, column tile, p, q, row, column, k], out of the stage "down"."""
    tile = geometry.tile
    dtype, signed = "int16" if tile.words else "uint8", tile.op.act.min < 0
    centre = tirx.const(tile.centre, dtype)

    def given(*at):
        byte = pad[at]
        if not tile.words:
            return byte
        return (tirx.reinterpret("int8", byte) if signed else byte).astype(dtype) - centre

    high, wide = tile.high, tile.wide

    def at_place(p, q, values) -> tirx.Expr:
        return pick(p, [pick(q, [tirx.const(v % 256, dtype) for v in row]) for row in values])

    offsets = tile.offsets.tolist()
    if geometry.tiling.crossed:
        crossings = (tile.crossings.first, tile.crossings.second)
        firsts, seconds = ((tile.offsets + side).tolist() for side in crossings)
    outer, inner = (tile.op.n, *geometry.tiles), (*geometry.patches, geometry.steps * tile.kq)
    (down, across), (tall, broad) = geometry.steps_of_patches, geometry.steps_of_tiles

    def line(image, ro, co, p, j, r, c, k):
        h, w = ro * tall + r * down, co * broad + c * across + j
        return transformed(high.input, p, lambda i: given(image, h + i, w, k), dtype)

    down = te.compute((*outer, high.products, len(wide.input[0]), *inner), line, name="down")

    def value(image, ro, co, p, q, *place):
        lines = (image, ro, co, p)
        total = transformed(wide.input, q, lambda j: down[(*lines, j, *place)], dtype)
        if tile.words:
            return total
        offset = at_place(p, q, offsets)
        if geometry.tiling.crossed:
            inside = place[-1] < geometry.steps // 2 * tile.kq
            offset = tirx.Select(inside, at_place(p, q, firsts), at_place(p, q, seconds))
        return total + offset

    return te.compute((*outer, high.products, wide.products, *inner), value, name="patch")


def _weights(geometry: Geometry, codes: KernelCodes, stored: list[te.Tensor]) -> te.Tensor:
    """weights[panel, p, q, r, s, k4, vector, lane, kt], as `TransformedWeights` stores them, out of
    the stage "rows"."""
    t, tiling, lookup = geometry.tile, geometry.tiling, geometry.tiling.lookup
    inner = (*t.direct, geometry.steps, tiling.vectors, tiling.lanes, t.kq)
    outer = (codes.panels, t.high.products)

    def line(panel, p, b, r, s, *place):
        def tap(a):
            return codes.value(stored, panel, r + a, s + b, place, lookup)

        return transformed(t.high.weight, p, tap, "uint8")

    rows = te.compute((*outer, t.wide.taps, *inner), line, name="rows")

    def value(panel, p, q, *place):
        total = transformed(t.wide.weight, q, lambda b: rows[(panel, p, b, *place)], "uint8")
        return total.astype("int8")

    return te.compute((*outer, t.wide.products, *inner), value, name="weights")


def _back(geometry: Geometry, products: te.Tensor) -> te.Tensor:
    """back[image, row tile, column tile, panel, i, j, row, column, vector, lane], int32, out of the
    stage "up"."""
    high, wide = geometry.tile.high, geometry.tile.wide
    image, ro, co, panels, _, places, *inner = (int(extent) for extent in products.shape)
    outer = (image, ro, co, panels, high.outputs)

    def line(image, ro, co, panel, i, q, *place):
        sums = (image, ro, co, panel)
        return transformed(high.back, i, lambda p: products[(*sums, p, q, *place)], "int32")

    up = te.compute((*outer, places, *inner), line, name="up")

    def value(image, ro, co, panel, i, j, *place):
        lines = (image, ro, co, panel, i)
        return transformed(wide.back, j, lambda q: up[(*lines, q, *place)], "int32")

    return te.compute((*outer, wide.outputs, *inner), value, name="back")


def transformed(matrix: Matrix, index: tirx.Expr, value, dtype: str) -> tirx.Expr:
    """Element `index` of matrix @ (value(0), value(1), ...), modulo 2^bits of dtype.

    Of the selection nothing remains where the loop over `index` is unrolled, and what elements
    have in common is computed once.
    """
    return pick(index, [_combined(row, value, dtype) for row in matrix])


def _combined(row: tuple[int, ...], value, dtype: str) -> tirx.Expr:
    """The sum of row[i] * value(i) by additions and doublings: bytes have no multiplication."""
    total = None
    for bit in reversed(range(max(map(abs, row)).bit_length())):
        if total is not None:
            total = total << tirx.const(1, dtype)
        # What is added comes first, so that nothing has to be negated.
        for i in sorted(range(len(row)), key=lambda i: row[i] < 0):
            if abs(row[i]) >> bit & 1:
                if total is None:
                    total = value(i) if row[i] > 0 else tirx.const(0, dtype) - value(i)
                else:
                    total = total + value(i) if row[i] > 0 else total - value(i)
    return total


def _divided_modulo(total: tirx.Expr, scale: int) -> tirx.Expr:
    """total / scale, of which total is known modulo 2^32.

    An odd factor's inverse is multiplied with, and the rest, a power of two, shifted out of what
    fits int32. The product is one of int64 of which the low half remains: TVM says of int32 that it
    does not wrap.
    """
    shift = (scale & -scale).bit_length() - 1
    if scale >> shift > 1:
        inverse = pow(scale >> shift, -1, 2**32)
        inverse -= inverse // 2**31 * 2**32
        total = (total.astype("int64") * tirx.const(inverse, "int64")).astype("int32")
    return total >> tirx.const(shift, "int32") if shift else total


def _divided(total: tirx.Expr, scale: int) -> tirx.Expr:
    """total / scale, which is exact. An odd factor goes through float32, where the quotient is
    rounded to the integer that it nearly is (`tile.THIRDS`): TVM says of a product of int32 that it
    does not wrap, so that the inverse modulo 2^32 cannot be multiplied with."""
    shift = (scale & -scale).bit_length() - 1
    total = total >> tirx.const(shift, "int32") if shift else total
    odd = scale >> shift
    if odd == 1:
        return total
    quotient = total.astype("float32") * tirx.const(1 / odd, "float32")
    rounded = tirx.reinterpret("int32", quotient + tirx.const(ROUNDING, "float32"))
    return rounded - tirx.const(ROUNDING_BITS, "int32")
