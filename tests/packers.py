"""Packed weights by NumPy and by the compiled packer, which have to be the same bytes."""

import numpy as np
import tvm_ffi

from lpgen.algorithms.kernel import Layout
from lpgen.algorithms.sections import joined_sections
from lpgen.build.lower import jit
from lpgen.runtime.memory import aligned_copy
from lpgen.target import Target

_UNTOUCHED = 0xA5


def assert_packers_agree(
    layout: Layout, w: np.ndarray, target: Target | None = None, **parameters: np.ndarray
) -> None:
    """Every section of the packed weights has the same bytes from both.

    What aligns the sections the compiled packer leaves as it was. target: what the packer is
    compiled for ["generic"]; arrays are given to it at addresses of their element's size.
    """
    by_numpy = layout.pack(w, **parameters)
    by_tir = aligned_copy(np.full(layout.nbytes, _UNTOUCHED, np.uint8))
    given = [aligned_copy(array, array.itemsize) for array in (w, *parameters.values())]
    pack = jit(layout.te_module(), target or Target.parse("generic"))
    pack(*map(tvm_ffi.from_dlpack, (*given, by_tir)))
    offsets, _ = joined_sections(layout.sections)
    for section, start in zip(layout.sections, offsets, strict=True):
        part = slice(start, start + section.nbytes)
        np.testing.assert_array_equal(by_tir[part], by_numpy[part], section.name)
