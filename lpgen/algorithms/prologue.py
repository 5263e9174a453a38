"""Functions that run before a kernel, each for one tensor that the kernel reads."""

from __future__ import annotations

from typing import NamedTuple

from tvm import te, tirx


class Prologue(NamedTuple):
    """Function (x, any sections by their names, the tensor) and the tensor that it fills."""

    function: tirx.PrimFunc
    tensor: te.Tensor
    """Placeholder in the definition of the kernel."""
