"""Models and nodes of ONNX as networks and operators of lpgen (extra `lpgen[onnx]`).

`read_network` takes the file of a model and gives a `lpgen.network.Network`: constants are folded,
quantized parts become operators on codes, and images lie with channels last. `import_node` takes
one node with its constant inputs (weights, scales, zero points, bias) and gives the operator with
its epilogue, its weights and parameters, and how tensors are laid out: ONNX has channels first and
the columns of a matrix last, lpgen has channels last and the columns first.

| node             | operator                                                                |
|------------------|-------------------------------------------------------------------------|
| ConvInteger      | conv2d, out=s32                                                         |
| QLinearConv      | conv2d, out=u8 or s8, with scale, zero points and bias                  |
| MatMulInteger    | dense, out=s32; where both sides have batches, conv2d of as many groups |
| QLinearMatMul    | the same, out=u8 or s8                                                  |
| QuantizeLinear   | quantize                                                                |
| DequantizeLinear | dequantize                                                              |
| QLinearAdd       | add (a node of com.microsoft)                                           |
| MaxPool, ...     | pool: MaxPool, AveragePool, Global and QLinear ones                     |
| Relu, ...        | unary, of float32: functions of one tensor, Clip, Pow by 2, 0.5 and -1  |
| Add, ...         | binary, of float32: Add, Sub, Mul, Div, Min, Max                        |
| Softmax, ...     | softmax, layer_norm, reduce, matmul, resize: nodes of float32 like them |

Operators: https://onnx.ai/onnx/operators. Their results are those of ONNX bit for bit: sums are
exact, and the one rounding (half to even) is that of float32(sum) * (x_scale * w_scale / y_scale).
QLinearAdd is computed as it is defined; onnxruntime's own differs by 1 now and then (docs/onnx.md).
"""

from lpgen.onnx.imported import Imported
from lpgen.onnx.lowering import lower, read_network
from lpgen.onnx.model import Model, read_model
from lpgen.onnx.nodes import import_node
from lpgen.onnx.unserved import UnservedNodes
from lpgen.ops.tensor_type import TensorType

__all__ = [
    "Imported",
    "Model",
    "TensorType",
    "UnservedNodes",
    "import_node",
    "lower",
    "read_model",
    "read_network",
]
