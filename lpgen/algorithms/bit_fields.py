"""Products with weights of several columns in a byte: what telescoped and lane_pack compute.

Bytes with several fields are the unsigned operand of a multiplication, the left side is the other
one: x + offset fits its type. What a field's products sum up to is for the schedules to say; here a
field is a code.
"""

from __future__ import annotations

from tvm import te

from lpgen.algorithms.definition import Definition, finish, matrix_sums, reduce_axes
from lpgen.algorithms.dot import Tiling, lhs_tiles
from lpgen.algorithms.lhs.k_split import cut
from lpgen.algorithms.lhs.view import Lhs, lhs_of
from lpgen.algorithms.sections import placeholders
from lpgen.algorithms.weights.bit_fields import FieldWeights, Plane
from lpgen.ops import Conv2d, Dense


def define(
    op: Dense | Conv2d, tiling: Tiling, planes: tuple[Plane, ...], left: str, offset: int
) -> Definition[Lhs, FieldWeights]:
    """The tensor expressions of `op`: stages pad (optional), pack (if copied), tile and y.

    left: "int8" or "uint8"; offset: what is added to every value of the left side, so that it fits.
    """
    matrix, t = op.matrix, tiling
    c = cut(op, t.kq, folded=t.folded, empty=True)
    weights = FieldWeights.of(op, c, t, offset + op.zero_act, planes=planes, lanes=t.lanes)
    sections = placeholders(weights.sections)
    lhs = lhs_of(op, c, left, offset)
    lhs_at = lhs_tiles(lhs, c, t, matrix.groups)
    r, s, kg, kt = reduce_axes(r=c.r, s=c.s, kg=c.kg, kt=c.kq)

    def product(g, mo, no, mi, nv, nl):
        x = lhs_at(g, mo, mi, r, s, kg, kt, None).astype("int32")
        code = weights.code(sections, g, no, (r * c.s + s) * c.kg + kg, nv, nl, kt)
        return te.sum(x * code, axis=[r, s, kg, kt])

    tile = te.compute(t.shape(matrix.groups), product, name="tile")
    return finish(op, lhs, weights, sections, matrix_sums(op, tile), codes=True)
