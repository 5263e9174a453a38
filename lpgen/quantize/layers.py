"""Bit layers of a plan: what a library stores of a layer's weights, and what that stands for.

Weights of 8 bits are prefixes of one code (`prefixes`), those of 1 bit are planes of signs with a
scale each, as PrecisionBatching has them (`greedy`). Both are found without data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lpgen.formats import Format
from lpgen.ops import hadamard
from lpgen.ops.layers import MOST_PLANES
from lpgen.quantize.greedy import Planes, planes
from lpgen.quantize.prefixes import BITS, BitLayers, bit_layers

if TYPE_CHECKING:
    from lpgen.plans import Precision


def stored(w: np.ndarray, precision: Precision) -> BitLayers | Planes:
    """All layers of the weights [n, k], rotated where the precision says so."""
    group, block = precision.weight_group, precision.hadamard
    w = hadamard.rotated(w, block) if block else w
    if precision.weight.bits == 1:
        return planes(w, MOST_PLANES, group)
    return bit_layers(w, None, group, range(1, BITS + 1))


def real(found: BitLayers | Planes, precision: Precision) -> np.ndarray:
    """What the layers that the precision uses stand for, float32 [n, k]."""
    made, block = found.real(precision.bit_layers), precision.hadamard
    return np.float32(hadamard.rotated(made, block) if block else made)


def for_kernels(
    w: np.ndarray, precision: Precision
) -> tuple[Format, int, np.ndarray, dict[str, np.ndarray]]:
    """(format, number of layers, weights, parameters) as an operator with all layers has them
    (`ops.layers`)."""
    found = stored(w, precision)
    if isinstance(found, Planes):
        return Format("b", 1), MOST_PLANES, found.stored, {"scale": found.scale}
    counts = range(1, BITS + 1)
    fits = {
        name: np.stack([values[count] for count in counts])
        for name, values in (("scale", found.scale), ("offset", found.offset))
    }
    return Format("u", BITS), BITS, found.codes, fits
