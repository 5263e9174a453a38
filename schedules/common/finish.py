"""The end of every template: from the scheduled function of a definition to its kernel."""

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_map

from lpgen.algorithms.definition import Definition
from lpgen.algorithms.entry import kernel_entry
from lpgen.algorithms.kernel import Kernel
from lpgen.isa import Isa
from lpgen.schedules.common import inside
from lpgen.schedules.common.narrow import narrow_together
from lpgen.tir.prefetch import prefetch_next, prefetch_weights
from lpgen.tir.quotient import quotient
from lpgen.tir.tails import peel_partial_vectors


def finished(
    func: tirx.PrimFunc,
    definition: Definition,
    *,
    prefetch: int = 0,
    isa: Isa | None = None,
    unrolled: bool = True,
) -> Kernel:
    """Kernel of the scheduled function `func`, by the passes that all templates share.

    prefetch: bytes of weights that loops over k ask for in advance (`prefetch_weights`), 0: none
        but those of the next panel (`prefetch_next`);
    isa: whose vectors of quantized values are narrowed together (`narrow_together`,
        `quantize_input`) and divided by multiplications, None: each is narrowed for itself;
    unrolled: without a loop over rows.
    """
    op, layout = definition.op, definition.layout
    weights = {section.name for section in definition.weights.sections}
    func = prefetch_next(func, weights)
    if prefetch:
        func = prefetch_weights(func, weights, prefetch)
    func = inside.skip_padding(func, op)
    if isa and isa.target.has_fma:
        func = _divided_once(func)
    if isa:
        func = narrow_together(func, op, isa, unrolled)
    func = peel_partial_vectors(func)
    rest = definition.prologue, definition.height, isa, definition.added
    entry = kernel_entry(func, op, layout.sections, *rest)
    return Kernel(op, entry, layout)


def _divided_once(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func` without divisions by the scale of a sum with a residual."""

    def without(node: tirx.Div) -> tirx.Expr:
        by = node.b
        if isinstance(by, TensorLoad) and by.source.name == "output_scale":
            return quotient(node.a, by)
        return node

    return func.with_body(structural_map(func.body, (tirx.Div, without)))
