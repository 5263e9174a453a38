"""Models of a few operators in TensorFlow Lite's flatbuffer format."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from lpgen.ops import Conv2d

_VERSION = 3
_FILE_IDENTIFIER = b"TFL3"
# The version of an operator that knows the types used here.
_VERSIONS = {"FULLY_CONNECTED": 12, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 6, "PAD": 2}
_ABSENT = -1
_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int32): schema.TensorType.INT32,
}
_NARROW = {2: schema.TensorType.INT2, 4: schema.TensorType.INT4, 8: schema.TensorType.INT8}


class Model:
    """A graph that grows by tensors, named by their numbers, and by operators on them."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: list[Any] = []
        self._buffers: list[Any] = [schema.BufferT()]

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: Any,
        scale: np.ndarray | None = None,
        zero: int = 0,
    ) -> int:
        """An input, a result or what passes between two operators; `scale`: one, or none."""
        return self._add(name, shape, _TYPES[np.dtype(dtype)], scale=scale, zero=zero)

    def weights(self, values: np.ndarray, bits: int, scale: np.ndarray, axis: int) -> int:
        """Constant int8 `values` stored with `bits` bits, and a scale for each place on `axis`."""
        data = _packed(np.ascontiguousarray(values), bits)
        return self._add("w", values.shape, _NARROW[bits], data, scale, axis=axis)

    def fully_connected(self, x: int, w: int, y: int, bias: np.ndarray | None) -> None:
        """y[m, n] = x[m, k] w[n, k]^T + bias[n], an int32 one for quantized x."""
        options = schema.FullyConnectedOptionsT()
        options.asymmetricQuantizeInputs = True
        last = _ABSENT if bias is None else self._bias(bias, x, w)
        self._append("FULLY_CONNECTED", "FullyConnectedOptions", options, [x, w, last], y)

    def convolution(self, x: int, w: int, y: int, bias: np.ndarray | None, op: Conv2d) -> None:
        """NHWC x and y; OHWI w, or [1, kh, kw, oc] of a depthwise convolution.

        It has to have a bias: 0 if none is given.
        """
        same = op.pad == _same_padding(op)
        if not same and any(op.pad):
            x = self._pad(x, op.pad)
        kind, options = "CONV_2D", schema.Conv2DOptionsT()
        if op.depthwise:
            kind, options = "DEPTHWISE_CONV_2D", schema.DepthwiseConv2DOptionsT()
            options.depthMultiplier = op.oc // op.ic
        options.padding = schema.Padding.SAME if same else schema.Padding.VALID
        options.strideH, options.strideW = op.stride
        options.dilationHFactor, options.dilationWFactor = op.dilation
        union = type(options).__name__.removesuffix("T")
        last = self._bias(np.zeros(op.oc, np.int32) if bias is None else bias, x, w)
        self._append(kind, union, options, [x, w, last], y)

    def _bias(self, values: np.ndarray, x: int, w: int) -> int:
        """A constant: float, or int32 with the scales of the products of x and w."""
        kind, scale = _TYPES[values.dtype], None
        if values.dtype == np.int32:
            left, right = (self._tensors[i].quantization.scale for i in (x, w))
            scale = np.multiply(left, right)
        return self._add("bias", values.shape, kind, values, scale)

    def _pad(self, x: int, edges: Sequence[int]) -> int:
        """x[n, h, w, c] with (top, left, bottom, right) rows and columns of its zero point."""
        top, left, bottom, right = edges
        source = self._tensors[x]
        n, h, w, c = source.shape
        shape = (n, h + top + bottom, w + left + right, c)
        table = np.asarray([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        constant = self._add("edges", table.shape, schema.TensorType.INT32, table)
        quantization = source.quantization
        scale, zero = np.asarray(quantization.scale), quantization.zeroPoint[0]
        y = self._add("padded", shape, source.type, scale=scale, zero=zero)
        self._append("PAD", "PadOptions", schema.PadOptionsT(), [x, constant], y)
        return y

    def bytes(self, source: int, result: int) -> bytes:
        """The finished model from one input to one result."""
        import flatbuffers

        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "operator", self._tensors, self._operators
        graph.inputs, graph.outputs = [source], [result]
        model = schema.ModelT()
        model.version, model.subgraphs = _VERSION, [graph]
        model.operatorCodes, model.buffers = self._codes, self._buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), _FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _add(
        self,
        name: str,
        shape: Sequence[int],
        kind: int,
        data: np.ndarray | None = None,
        scale: np.ndarray | None = None,
        zero: int = 0,
        axis: int = 0,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), kind
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = data.reshape(-1).view(np.uint8)
            self._buffers.append(buffer)
            tensor.buffer = len(self._buffers) - 1
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [float(value) for value in scale]
            tensor.quantization.zeroPoint = [int(zero)] * len(scale)
            tensor.quantization.quantizedDimension = axis
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _append(self, kind: str, union: str, options: Any, inputs: list[int], y: int) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version = _VERSIONS[kind]
        self._codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self._codes) - 1
        operator.inputs, operator.outputs = inputs, [y]
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, union)
        operator.builtinOptions = options
        self._operators.append(operator)


def _same_padding(op: Conv2d) -> tuple[int, ...]:
    """(top, left, bottom, right) that "SAME" means: as little as keeps ceil(size / stride)."""
    before, after = [], []
    sizes = zip((op.h, op.w), op.reach, op.stride, strict=True)
    for size, reach, stride in sizes:
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        before.append(total // 2)
        after.append(total - total // 2)
    return (*before, *after)


def _packed(values: np.ndarray, bits: int) -> np.ndarray:
    """The low `bits` bits of each value, the first of a byte in its lowest bits."""
    codes = values.reshape(-1).view(np.uint8) & (1 << bits) - 1
    per_byte = 8 // bits
    codes = np.pad(codes, (0, -len(codes) % per_byte)).reshape(-1, per_byte)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return np.bitwise_or.reduce(codes << shifts, axis=1).astype(np.uint8)
