"""Stages of a definition that statements compute, where tensor expressions do not serve."""

from collections.abc import Callable, Sequence

from tvm import te, tirx
from tvm.script.ir_builder import IRBuilder


def extern(
    name: str, shape: Sequence[int], dtype: str, inputs: Sequence[te.Tensor], body: Callable
) -> te.Tensor:
    """Stage `name`, `dtype`[shape]: body(*buffers of the inputs, its own buffer) emits it."""

    def emit(read, written):
        with IRBuilder() as builder:
            body(*read, *written)
        return builder.get()

    # Buffers of our own: the ones te.extern would make have a symbolic offset.
    read = [tirx.decl_buffer(t.shape, t.dtype, name=t.op.name) for t in inputs]
    written = [tirx.decl_buffer(shape, dtype, name=name)]
    return te.extern(
        [shape], list(inputs), emit, name=name, dtype=[dtype], in_buffers=read, out_buffers=written
    )
