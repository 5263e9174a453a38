"""Small random graphs of ONNX between DequantizeLinear and QuantizeLinear.

Scales are powers of two, so that every float32 operation in them is exact, and the reference
evaluator of ONNX gives the integers that a network has to give.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

from lpgen.onnx import read_network

DTYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "float32": TensorProto.FLOAT}

OTHERS = ("add", "max_pool", "function", "multiply", "concat", "pad")
GROWN = ("shifted", "largest", "normalized", "resized", "upsampled", "squared")
"""Layers beside convolutions: methods of `Graph`. GROWN: those of text recognisers."""

OPSETS = [helper.make_opsetid("", 19), helper.make_opsetid("com.microsoft", 1)]


class Graph:
    """A graph that grows: each method adds nodes and returns the name of a float32 edge, whose
    shape is in `shapes`."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
        self.rng = rng
        self.nodes, self.constants, self.shapes = [], [], {"x": shape}
        self.count = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def constant(self, array: np.ndarray) -> str:
        name = self.name("c")
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add_node(self, kind: str, inputs: list[str], shape: tuple[int, ...], **attributes) -> str:
        y = self.name(kind.lower())
        self.nodes.append(helper.make_node(kind, inputs, [y], name=f"{y}.node", **attributes))
        self.shapes[y] = shape
        return y

    def scale(self, low: int = -6, high: int = -2) -> np.float32:
        return np.float32(2.0 ** self.rng.integers(low, high + 1))

    def quantized(self, x: str, scale: np.float32 | None = None) -> str:
        """QuantizeLinear and DequantizeLinear."""
        dtype = self.rng.choice(["uint8", "int8"])
        info = np.iinfo(dtype)
        zero = self.rng.integers(info.min, info.max + 1) if self.rng.random() < 0.5 else 0
        how = [self.constant(scale or self.scale()), self.constant(np.array(zero, dtype))]
        codes = self.add_node("QuantizeLinear", [x, *how], self.shapes[x])
        return self.add_node("DequantizeLinear", [codes, *how], self.shapes[x])

    def weights(self, shape: tuple[int, ...], axis: int) -> str:
        dtype = self.rng.choice(["int8", "int8", "uint8"])
        info = np.iinfo(dtype)
        channels = (shape[axis],) if self.rng.random() < 0.7 else ()
        scale = np.float32(2.0 ** self.rng.integers(-8, -4, channels))
        zero = np.zeros(channels, dtype) if dtype == "int8" else np.full(channels, 128, dtype)
        codes = self.rng.integers(info.min, info.max + 1, shape).astype(dtype)
        inputs = [self.constant(codes), self.constant(scale), self.constant(zero)]
        return self.add_node("DequantizeLinear", inputs, shape, axis=axis)

    def conv(self, x: str) -> str:
        rng, (n, c, h, w) = self.rng, self.shapes[x]
        kernel = [int(rng.integers(1, min(3, size) + 1)) for size in (h, w)]
        stride = [int(s) for s in rng.integers(1, 3, 2)]
        pads = [int(p) for p in rng.integers(0, 2, 4)]
        pads = [min(p, k - 1) for p, k in zip(pads, kernel * 2, strict=True)]
        group = int(rng.choice([g for g in (1, 2, c) if c % g == 0]))
        out = group * int(rng.integers(1, 5))
        inputs = [x, self.weights((out, c // group, *kernel), 0)]
        if rng.random() < 0.5:
            inputs.append(self.constant(np.float32(rng.integers(-64, 64, out)) / 32))
        size = [
            (s + a + b - k) // t + 1
            for s, a, b, k, t in zip((h, w), pads[:2], pads[2:], kernel, stride, strict=True)
        ]
        return self.add_node(
            *("Conv", inputs, (n, out, *size)),
            **{"kernel_shape": kernel, "strides": stride, "pads": pads, "group": group},
        )

    def relu(self, x: str) -> str:
        if self.rng.random() < 0.5:
            return self.add_node("Relu", [x], self.shapes[x])
        bounds = [self.constant(np.float32(v)) for v in (0, 6)]
        return self.add_node("Clip", [x, *bounds], self.shapes[x])

    def max_pool(self, x: str) -> str:
        n, c, h, w = self.shapes[x]
        kernel = [min(2, h), min(2, w)]
        size = [s - k + 1 for s, k in zip((h, w), kernel, strict=True)]
        return self.add_node("MaxPool", [x], (n, c, *size), kernel_shape=kernel)

    def function(self, x: str) -> str:
        kind = self.rng.choice(["Sigmoid", "HardSigmoid", "LeakyRelu", "Tanh", "Neg"])
        return self.quantized(self.add_node(kind, [x], self.shapes[x]))

    def add(self, x: str) -> str:
        """Of the tensor and of itself through a convolution of as many channels."""
        channels = self.shapes[x][1]
        w = self.weights((channels, channels, 1, 1), 0)
        other = self.quantized(self.add_node("Conv", [x, w], self.shapes[x]))
        total = self.add_node("Add", [x, other], self.shapes[x])
        return self.relu(total) if self.rng.random() < 0.5 else total

    def multiply(self, x: str) -> str:
        """By factors of channels: the largest value of each, through a sigmoid."""
        n, c, h, w = self.shapes[x]
        top = self.add_node("GlobalMaxPool", [x], (n, c, 1, 1))
        factors = self.quantized(self.add_node("HardSigmoid", [top], (n, c, 1, 1)))
        return self.add_node("Mul", [x, factors], (n, c, h, w))

    def concat(self, x: str) -> str:
        """Of the tensor, or a part of it, and of itself with another scale."""
        n, c, h, w = self.shapes[x]
        other = self.quantized(self.relu(x))
        if c > 1 and self.rng.random() < 0.5:
            bounds = [self.constant(np.array([v], np.int64)) for v in (1, c, 1)]
            x = self.add_node("Slice", [x, *bounds], (n, c - 1, h, w))
        channels = self.shapes[x][1] + c
        return self.add_node("Concat", [other, x], (n, channels, h, w), axis=1)

    def pad(self, x: str) -> str:
        n, c, h, w = self.shapes[x]
        edges = self.constant(np.array([0, 0, 1, 0, 0, 0, 0, 2], np.int64))
        return self.add_node("Pad", [x, edges], (n, c, h + 1, w + 2))

    def shifted(self, x: str) -> str:
        """With a quantized constant for each channel added, or multiplied."""
        codes = self.rng.integers(-128, 128, (1, self.shapes[x][1], 1, 1)).astype(np.int8)
        how = [self.constant(codes), self.constant(self.scale()), self.constant(np.int8(3))]
        other = self.add_node("DequantizeLinear", how, codes.shape)
        kind = self.rng.choice(["Add", "Mul"])
        pair = [x, other] if self.rng.random() < 0.5 else [other, x]
        return self.add_node(kind, pair, self.shapes[x])

    def largest(self, x: str) -> str:
        """Of a function of codes."""
        return self.max_pool(self.add_node("HardSigmoid", [x], self.shapes[x]))

    def normalized(self, x: str) -> str:
        """Behind a convolution, or behind codes."""
        if self.rng.random() < 0.5:
            x = self.conv(x)
        channels = self.shapes[x][1]
        parts = [
            np.float32(2.0 ** self.rng.integers(-1, 2, channels)),
            *(np.float32(self.rng.integers(-8, 8, channels)) for _ in range(2)),
            np.float32(4.0 ** self.rng.integers(-1, 2, channels)),
        ]
        inputs = [x, *(self.constant(part) for part in parts)]
        return self.add_node("BatchNormalization", inputs, self.shapes[x], epsilon=0.0)

    def resized(self, x: str) -> str:
        """Twice as high and three times as wide, of codes or of a table of them."""
        if self.rng.random() < 0.5:
            x = self.function(x)
        n, c, h, w = self.shapes[x]
        scales = self.constant(np.float32([1, 1, 2, 3]))
        return self.add_node(
            *("Resize", [x, "", scales], (n, c, 2 * h, 3 * w)),
            **{"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        )

    def upsampled(self, x: str) -> str:
        """By a transposed convolution whose patches lie side by side."""
        n, c, h, w = self.shapes[x]
        kernel, out = [int(k) for k in self.rng.integers(1, 4, 2)], int(self.rng.integers(1, 5))
        inputs = [x, self.weights((c, out, *kernel), 1)]
        if self.rng.random() < 0.5:
            inputs.append(self.constant(np.float32(self.rng.integers(-64, 64, out)) / 32))
        shape = (n, out, h * kernel[0], w * kernel[1])
        return self.add_node("ConvTranspose", inputs, shape, kernel_shape=kernel, strides=kernel)

    def squared(self, x: str) -> str:
        """The product of each image with itself transposed."""
        n, c, h, w = self.shapes[x]
        turned = self.add_node("Transpose", [x], (n, c, w, h), perm=[0, 1, 3, 2])
        return self.add_node("MatMul", [x, turned], (n, c, h, h))

    def matmul(self, x: str) -> str:
        rows, depth = self.shapes[x]
        out = int(self.rng.integers(1, 9))
        bias = self.constant(np.float32(self.rng.integers(-64, 64, out)) / 32)
        if self.rng.random() < 0.5:
            return self.add_node(
                *("Gemm", [x, self.weights((out, depth), 0), bias], (rows, out)), transB=1
            )
        y = self.add_node("MatMul", [x, self.weights((depth, out), 1)], (rows, out))
        return self.add_node("Add", [y, bias], (rows, out))

    def model(self, y: str):
        """The checked model with the output y."""
        of_type = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [of_type("x", TensorProto.FLOAT, self.shapes["x"])],
            [of_type(y, TensorProto.FLOAT, self.shapes[y])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=OPSETS, ir_version=9)
        checker.check_model(model)
        return model


def random_model(rng: np.random.Generator, others: Sequence[str] = OTHERS):
    """A model of a few layers, and an input; others: those beside convolutions."""
    shape = (int(rng.integers(1, 3)), *(int(s) for s in rng.integers(1, 8, 3)))
    graph = Graph(rng, shape)
    y = graph.quantized("x")
    for _ in range(rng.integers(1, 5)):
        kind = rng.choice([*["conv"] * 3, *others])
        y = getattr(graph, kind)(y)
        if kind in ("conv", "add", "multiply", "concat", *GROWN):
            y = graph.relu(y) if rng.random() < 0.4 else y
            y = graph.quantized(y)
    if rng.random() < 0.5:
        n = shape[0]
        flat = (n, int(np.prod(graph.shapes[y])) // n)
        y = graph.add_node("Flatten", [y], flat)
        y = graph.matmul(y)
        y = graph.quantized(y) if rng.random() < 0.5 else y
    x = np.float32(rng.integers(-64, 64, shape)) / 16
    return graph.model(y), x


def network_of(model, tmp_path, **shapes):
    """The network of a model, by way of a file."""
    onnx.save(model, tmp_path / "model.onnx")
    return read_network(tmp_path / "model.onnx", shapes)
