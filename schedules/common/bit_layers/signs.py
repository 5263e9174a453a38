"""The code of a register tile of planes of signs, each with scales of its own.

A loop over as many planes as the call says, inside of that over groups: the sums of products with
the bits of a plane, and behind all of them

    tile += float32(2 * sums - sum of x) * scale

Nothing of one plane serves another one, so that a plane costs what one bit of weights costs.
"""

from __future__ import annotations

from tvm.tirx.script import builder as tb

from lpgen.schedules.common.bit_fields import Registers
from lpgen.schedules.common.bit_layers.prefixes import Part, Prefix
from lpgen.schedules.common.bit_layers.tile import LayersTile
from lpgen.tir import vectors
from lpgen.tir.microkernel import Site
from lpgen.tir.prefetch import hint

PLANE = Prefix((Part((0,), 1),), 0, False)


class SignsTile(LayersTile):
    """Emits the code."""

    def partial(self, site: Site) -> None:
        """Emit the sums of a group with the bits of each plane."""
        tile = self.rows * self.vectors
        self.apart, self.chains, self.halves = self._apart(PLANE), self._chains(PLANE), None
        self.sums = Registers(self.apart * self.chains * tile, "int32", self.lanes)
        if not self.isa.has_dot4:
            self.halves = Registers(tile, "int16", 2 * self.lanes)
            self.halves.zero()
        with tb.serial(0, self.number) as i:
            self.operands.plane = i
            self.sums.zero()
            self._part(site, PLANE.parts[0], masked=False)
            for mi in range(self.rows):
                for nv in range(self.vectors):
                    at = site.target.at(mi=mi, nv=nv, i=i)
                    total = self._of_fields(mi, nv, 1)
                    vectors.store(site.target.buffer, at, total, self.lanes)

    def update(self, site: Site) -> None:
        """Emit tile += float32(2 * sums - row) * scale for each plane."""
        sums, lanes = site.sources["partial"], self.lanes
        one = vectors.splat(1, "int32", lanes)
        with tb.serial(0, self.number) as i:
            self._ask(i)
            for nv in range(self.vectors):
                access = self.terms["fit"]
                stored = vectors.load(access.buffer, access.at(nv=nv, i=i), lanes)
                scale = vectors.bind(self.floats(stored))
                for mi in range(self.rows):
                    at = site.target.at(mi=mi, nv=nv)
                    bits = vectors.load(sums.buffer, sums.at(mi=mi, nv=nv, i=i), lanes)
                    signs = (bits << one) - vectors.splat(self._row(mi), "int32", lanes)
                    total = vectors.load(site.target.buffer, at, lanes)
                    scaled = self.rounded(signs.astype(f"float32x{lanes}") * scale)
                    vectors.store(site.target.buffer, at, total + scaled, lanes)

    def _ask(self, plane) -> None:
        """Emit prefetches of the scales that belong to the weights asked for."""
        if not self.ahead:
            return
        access, columns = self.terms["fit"], self.vectors * self.lanes
        groups = -(-self.ahead // (self.weights.steps * columns // 2))
        planes = self.op.bit_layers.high
        for first in range(0, columns, 16):
            *outer, vector, lane = access.at(i=plane)
            ahead = lane + groups * planes * columns + first
            tb.add_to_parent(hint(access.buffer[(*outer, vector, ahead)]))
