"""The C interface of a kernel: the tensors that its functions take, as C text."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lpgen.ops.sparse import NAMES

if TYPE_CHECKING:
    from lpgen.algorithms.kernel import Layout
    from lpgen.ops import Operator

PACKED_HEADER = 64
"""Bytes of the header of packed weights (packed.c), behind which the layout's data are."""


class Tensor(NamedTuple):
    """A dense tensor argument."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def c_type(self) -> str:
        """The C type of an element."""
        return "float" if self.dtype == "float32" else f"{self.dtype}_t"

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def initializer(self) -> str:
        """As a `struct tensor`: name, type as DLPack numbers it, bits, dimensions, shape."""
        code = {"int": 0, "uint": 1, "float": 2}[re.sub(r"\d", "", self.dtype)]
        sizes, bits = ", ".join(map(str, self.shape)), re.sub(r"\D", "", self.dtype)
        return f'{{"{self.name}", {code}, {bits}, {len(self.shape)}, {{{sizes}}}}}'

    @property
    def macro(self) -> str:
        """What its size is called in the header, behind the kernel's name."""
        return f"{self.name.upper()}_BYTES"


def x(op: Operator) -> Tensor:
    """The activations."""
    return Tensor("x", op.x_shape, op.x_dtype)


def residual(op: Operator) -> Tensor | None:
    """The tensor that the epilogue adds, if it does."""
    return Tensor("residual", op.y_extents, op.residual.dtype) if op.residual else None


def packed(layout: Layout) -> Tensor:
    """The packed weights: their header and what the layout says."""
    return Tensor("packed", (PACKED_HEADER + layout.nbytes,), "uint8")


def y(op: Operator) -> Tensor:
    """The result."""
    return Tensor("y", op.y_shape, op.y_dtype)


def given(op: Operator) -> list[Tensor]:
    """What is packed: the weights, then the parameters."""
    weights = Tensor("weights", op.w_shape, op.weight.dtype)
    return [weights, *(Tensor(name, p.shape, p.dtype) for name, p in op.parameters.items())]


def run_signature(op: Operator, symbol: str) -> str:
    """The function that computes, up to its closing parenthesis."""
    inputs = [f"const {x(op).c_type} *x, size_t x_bytes"]
    inputs.append("const void *packed, size_t packed_bytes")
    if added := residual(op):
        inputs.append(f"const {added.c_type} *residual, size_t residual_bytes")
    inputs.append(f"{y(op).c_type} *y, size_t y_bytes")
    inputs.append("void *workspace, size_t workspace_bytes")
    return _wrapped(f"lpgen_status {symbol}(", [*inputs, "int threads"])


def pack_signature(op: Operator, symbol: str) -> str:
    """The function that packs, up to its closing parenthesis."""
    inputs = [f"const {t.c_type} *{t.name}, size_t {t.name}_bytes" for t in given(op)]
    inputs.append("void *packed, size_t packed_bytes")
    return _wrapped(f"lpgen_status {symbol}_pack_weights(", inputs)


def _wrapped(start: str, arguments: list[str]) -> str:
    """start + arguments + ")", in lines of 100 columns."""
    lines = [start]
    for number, argument in enumerate(arguments):
        text = argument + (")" if number + 1 == len(arguments) else ", ")
        if len(lines[-1]) + len(text) > 99 and lines[-1] != start:
            lines[-1] = lines[-1].rstrip()
            lines.append(" " * len(start))
        lines[-1] += text
    return "\n".join(lines)


def public_functions(op: Operator, symbol: str) -> str:
    """The definitions of both functions, by those that check (entry.c)."""
    added, inputs = residual(op), given(op)
    extra = "residual, residual_bytes" if added else "NULL, 0"
    return f"""
PUBLIC {run_signature(op, symbol)} {{
  return kernel_run(&{symbol}_kernel, x, x_bytes, packed, packed_bytes, {extra}, y, y_bytes,
                    workspace, workspace_bytes, threads);
}}
PUBLIC {pack_signature(op, symbol)} {{
  const void *inputs[] = {{{", ".join(t.name for t in inputs)}}};
  const size_t bytes[] = {{{", ".join(f"{t.name}_bytes" for t in inputs)}}};
  return kernel_pack(&{symbol}_kernel, inputs, bytes, packed, packed_bytes);
}}"""


def internal_functions(op: Operator, symbol: str, run: str, pack: str) -> str:
    """The generated functions `run` and `pack` behind one signature for all kernels: {symbol}_run
    and {symbol}_pack."""
    added, count = residual(op), len(given(op))
    rest = "".join(f", inputs[{i}]" for i in range(1, count))
    return f"""
int32_t {run}(const void *x, const void *packed, {"const void *residual, " * bool(added)}void *y,
    int32_t threads);
int32_t {pack}(const void *weights, void *packed{", const void *" * (count - 1)}, int32_t threads);
static int32_t {symbol}_run(const void *x, const void *packed, const void *residual, void *y,
                            int32_t threads) {{
  {"" if added else "(void)residual;"}
  return {run}(x, packed, {"residual, " * bool(added)}y, threads);
}}
static int32_t {symbol}_pack(const void *const *inputs, void *packed) {{
  return {pack}(inputs[0], packed{rest}, 1);
}}"""


def outliers(op: Operator) -> int:
    """Which parameter is the first of the three of outliers, -1: none."""
    return list(op.parameters).index(NAMES[0]) if op.outliers else -1


def parameter_initializers(op: Operator) -> str:
    """The elements of the array of `struct parameter`, and one more that ends it."""
    limits = [
        f"{{{tensor.initializer}, {float(p.low)!r}, {float(p.high)!r}, {p.zeros:#x}}}, "
        for tensor, p in zip(given(op)[1:], op.parameters.values(), strict=True)
    ]
    return "".join(limits) + "{{NULL}}"
