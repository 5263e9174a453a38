"""Small float models of ONNX with random weights, for tests of plans."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def _model(nodes: list, weights: dict[str, np.ndarray], x: tuple, y: tuple) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _weights(seed: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Normal, as large as keeps the size of what goes through."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(size=shape) * (2 / np.prod(shape[:-1])) ** 0.5).astype(np.float32)
        for name, shape in shapes.items()
    }


def mlp(rows: int | str = "n", seed: int = 0) -> onnx.ModelProto:
    """x [rows, 16] -> y [rows, 5]: two layers beside each other, one, and one; the weights of
    `beside` come from a Transpose, those of `last` are transposed by its Gemm."""
    weights = _weights(seed, w0=(16, 24), w1=(16, 24), w2=(24, 24), w3=(24, 5))
    weights["w1"], weights["w3"] = weights["w1"].T.copy(), weights["w3"].T.copy()
    weights["b3"] = np.linspace(-1, 1, 5, dtype=np.float32)
    nodes = [
        helper.make_node("Transpose", ["w1"], ["w1t"], "transposed"),
        helper.make_node("MatMul", ["x", "w0"], ["h0"], "first"),
        helper.make_node("MatMul", ["x", "w1t"], ["h1"], "beside"),
        helper.make_node("Add", ["h0", "h1"], ["h2"], "sum"),
        helper.make_node("Relu", ["h2"], ["h3"], "relu"),
        helper.make_node("MatMul", ["h3", "w2"], ["h4"], "second"),
        helper.make_node("Relu", ["h4"], ["h5"], "relu2"),
        helper.make_node("Gemm", ["h5", "w3", "b3"], ["y"], "last", transB=1),
    ]
    return _model(nodes, weights, (rows, 16), (rows, 5))


def small_cnn(images: int | str = "n", seed: int = 0) -> onnx.ModelProto:
    """x [images, 3, 8, 8] -> y [images, 5]: a convolution, a depthwise one, the mean, a product."""
    rng = np.random.default_rng(seed)
    weights = {
        "w0": rng.normal(size=(8, 3, 3, 3)).astype(np.float32) * 0.3,
        "b0": rng.normal(size=8).astype(np.float32) * 0.1,
        "w1": rng.normal(size=(8, 1, 3, 3)).astype(np.float32) * 0.5,
        "w2": rng.normal(size=(8, 5)).astype(np.float32),
        "size": np.array([0, -1], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["h0"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h0"], ["h1"], "relu"),
        helper.make_node("Conv", ["h1", "w1"], ["h2"], "depthwise", pads=[1, 1, 1, 1], group=8),
        helper.make_node("Relu", ["h2"], ["h3"], "relu2"),
        helper.make_node("GlobalAveragePool", ["h3"], ["h4"], "mean"),
        helper.make_node("Reshape", ["h4", "size"], ["h5"], "flat"),
        helper.make_node("MatMul", ["h5", "w2"], ["y"], "classes"),
    ]
    return _model(nodes, weights, (images, 3, 8, 8), (images, 5))


def swish_cnn(seed: int = 0) -> onnx.ModelProto:
    """x [1, 3, 8, 8] -> y [1, 5, 8, 8]: three convolutions, between which are a hard-swish of four
    nodes, and the product of that with a function of its mean (squeeze and excite)."""
    weights = _weights(seed, w0=(8, 3, 3, 3), w1=(8, 8, 1, 1), w2=(5, 8, 1, 1))
    numbers = {"three": 3.0, "zero": 0.0, "six": 6.0, "part": 0.3}
    weights |= {name: np.float32(number) for name, number in numbers.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["h0"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["h0", "three"], ["s0"], "moved"),
        helper.make_node("Clip", ["s0", "zero", "six"], ["s1"], "bounded"),
        helper.make_node("Mul", ["h0", "s1"], ["s2"], "gated"),
        helper.make_node("Mul", ["s2", "part"], ["h1"], "swish"),
        helper.make_node("GlobalAveragePool", ["h1"], ["m0"], "mean"),
        helper.make_node("Conv", ["m0", "w1"], ["m1"], "squeeze"),
        helper.make_node("HardSigmoid", ["m1"], ["m2"], "excite"),
        helper.make_node("Mul", ["h1", "m2"], ["h2"], "product"),
        helper.make_node("Conv", ["h2", "w2"], ["y"], "last"),
    ]
    return _model(nodes, weights, (1, 3, 8, 8), (1, 5, 8, 8))


def quantized_mlp(rows: int = 4, hadamard: int = 0, group: int = 0) -> onnx.ModelProto:
    """`mlp` with int8 weights behind DequantizeLinear, as standard nodes have them: scales of the
    output channels, or of groups along k; and with the input of `first` and `beside` rotated."""
    from lpgen.ops import hadamard as rotation

    model = mlp(rows)
    graph = model.graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = []
    if hadamard:
        turn = rotation.rotated(np.eye(hadamard), hadamard).astype(np.float32)
        tensors |= {"turn": turn, "cut": np.int64([-1, hadamard]), "whole": np.int64([rows, 16])}
        nodes += [
            helper.make_node("Reshape", ["x", "cut"], ["blocks"]),
            helper.make_node("MatMul", ["blocks", "turn"], ["turned"]),
            helper.make_node("Reshape", ["turned", "whole"], ["rotated"]),
        ]
    tensors["w1t"] = tensors.pop("w1").T
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            rotated = hadamard if node.name in ("first", "beside") else 0
            turned = node.op_type == "Gemm"
            w = tensors.pop(node.input[1])
            if rotated:
                w = rotation.rotated(w.T, rotated).T
                node.input[0] = "rotated"
            size = group or (w.shape[1] if turned else w.shape[0])
            blocks = np.abs(w if turned else w.T).reshape(w.shape[0 if turned else 1], -1, size)
            scale = blocks.max(2).astype(np.float32) / 127
            spread = np.repeat(scale, size, axis=1)
            codes = np.rint(w / (spread if turned else spread.T)).astype(np.int8)
            how = {"axis": 0 if turned else 1}
            if group:
                how = {"axis": 1 if turned else 0, "block_size": group}
                scale = scale if turned else scale.T
            names = [f"{node.name}.codes", f"{node.name}.scale"]
            tensors |= dict(zip(names, (codes, scale if group else scale[:, 0]), strict=True))
            made = f"{node.name}.weights"
            nodes.append(helper.make_node("DequantizeLinear", names, [made], **how))
            node.input[1] = made
        if node.op_type != "Transpose":
            nodes.append(node)
    made = [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in tensors.items()]
    graph = helper.make_graph(nodes, "quantized", graph.input, graph.output, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model
