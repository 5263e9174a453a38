"""Small float models of ONNX, and calls for them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def made(nodes, constants, inputs, outputs, opset: int = 17) -> onnx.ModelProto:
    """A model of these nodes; inputs, outputs: sizes of float32 by name."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def image_model(rng: np.random.Generator, opset: int = 17) -> onnx.ModelProto:
    """Two convolutions, one of them depthwise, and a dense layer: x [1, 3, 8, 8] -> y [1, 10]."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], name="depthwise", group=8, pads=[1, 1, 1, 1]),
        node("Relu", ["c2"], ["r2"]),
        node("Conv", ["r2", "w3"], ["c3"], name="third"),
        node("Relu", ["c3"], ["r3"]),
        node("GlobalAveragePool", ["r3"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w4", "b4"], ["y"], name="last", transB=1),
    ]
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 1, 3, 3), "w3": (12, 8, 1, 1), "w4": (10, 12)}
    constants = {n: rng.normal(size=s) / np.sqrt(np.prod(s[1:])) for n, s in shapes.items()}
    constants |= {n: rng.normal(size=s) / 4 for n, s in {"b1": 8, "b2": 8, "b4": 10}.items()}
    return made(nodes, constants, {"x": (1, 3, 8, 8)}, {"y": (1, 10)}, opset)


def images(rng: np.random.Generator, count: int) -> list[dict[str, np.ndarray]]:
    """Calls of `image_model`: smooth images."""
    noise = rng.normal(size=(count, 1, 3, 10, 10))
    smooth = noise[..., 1:-1, 1:-1] + noise[..., :-2, 1:-1] + noise[..., 1:-1, :-2]
    return [{"x": x} for x in smooth.astype(np.float32)]


def text_model(rng: np.random.Generator, k: int = 64) -> onnx.ModelProto:
    """Two layers that share an input, and one behind a GELU: x [rows, k] -> y [rows, 16]."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "wq"], ["q0"], name="query"),
        node("Add", ["q0", "bq"], ["q"]),
        node("MatMul", ["x", "wk"], ["k0"], name="key"),
        node("Mul", ["q", "k0"], ["m"]),
        node("Gelu", ["m"], ["g"]),
        node("MatMul", ["g", "wo"], ["y"], name="out"),
    ]
    shapes = {"wq": (k, k), "wk": (k, k), "wo": (k, 16)}
    constants = {n: rng.normal(size=s) / np.sqrt(s[0]) for n, s in shapes.items()}
    constants["bq"] = rng.normal(size=k)
    return made(nodes, constants, {"x": ("rows", k)}, {"y": ("rows", 16)}, opset=20)


def rows(rng: np.random.Generator, count: int, k: int = 64) -> list[dict[str, np.ndarray]]:
    """Calls of `text_model` of different sizes, with two large channels."""
    large = np.ones(k)
    large[[3, k // 2]] = 8
    mix = np.eye(k) + rng.normal(size=(k, k)) / np.sqrt(k)
    sizes = rng.integers(3, 12, count)
    return [{"x": ((rng.normal(size=(s, k)) @ mix) * large).astype(np.float32)} for s in sizes]
