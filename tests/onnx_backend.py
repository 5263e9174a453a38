"""An ONNX backend of lpgen's kernels, for models of one node, and ONNX's own tests of nodes."""

import importlib

import numpy as np
from kernels import arguments

from lpgen.ops.operator import Example

KINDS = {
    "ConvInteger": "convinteger",
    "DequantizeLinear": "dequantizelinear",
    "MatMulInteger": "matmulinteger",
    "QLinearConv": "qlinearconv",
    "QLinearMatMul": "qlinearmatmul",
    "QuantizeLinear": "quantizelinear",
}
"""Operator -> the module with its cases."""


def cases() -> list:
    """The test cases of onnx.backend.test for KINDS, those of one node."""
    from onnx.backend.test.case import node

    for module in KINDS.values():  # importing one makes its cases
        importlib.import_module(f"{node.__name__}.{module}")
    return [case for case in node._NodeTestCases if _kind(case.model) in KINDS]


def _kind(model) -> str | None:
    return model.graph.node[0].op_type if len(model.graph.node) == 1 else None


def run(imported, x: np.ndarray) -> np.ndarray:
    """The node's result for its first input, by the kernel that a library would have."""
    from lpgen.build.lower import jit
    from lpgen.records.choose import choose
    from lpgen.target import Target

    target = Target.parse("native")
    kernel = choose(imported.op, target).kernel
    output = imported.op.signature.output
    y = np.zeros(output.shape, output.dtype)
    given = imported.given(x)
    packed = {} if imported.weights is None else imported.parameters
    example = Example("node", given, imported.weights, packed)
    jit(kernel, target)(*arguments(kernel, example, y))
    return imported.y(y)


def backend() -> type:
    """A subclass of onnx.backend.base.Backend. What ONNX's cases have as inputs is constant here:
    it becomes known with the call."""
    from onnx import helper
    from onnx.backend import base

    from lpgen.onnx import TensorType, import_node

    class Rep(base.BackendRep):
        def __init__(self, model):
            self.model = model

        def run(self, inputs, **kwargs):
            (node,) = self.model.graph.node
            given = dict(zip((i.name for i in self.model.graph.input), inputs, strict=True))
            x = given[node.input[0]]
            imported = import_node(node, TensorType(x.shape, x.dtype.name), given)
            kind = self.model.graph.output[0].type.tensor_type.elem_type
            y = run(imported, x.astype(imported.op.signature.inputs[0].dtype))  # from int4, too
            return (y.astype(helper.tensor_dtype_to_np_dtype(kind)),)

    class Backend(base.Backend):
        @classmethod
        def prepare(cls, model, device="CPU", **kwargs):
            super().prepare(model, device, **kwargs)
            return Rep(model)

        @classmethod
        def supports_device(cls, device):
            return device == "CPU"

    return Backend
