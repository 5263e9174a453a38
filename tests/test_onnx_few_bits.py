"""Quantized nodes of other domains: QONNX, MatMulNBits, blocks of scales, QLinear ones."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_graphs import Graph  # noqa: E402

from lpgen.onnx import UnservedNodes, read_network  # noqa: E402

QONNX, MICROSOFT = "qonnx.custom_op.general", "com.microsoft"


def network_of(graph, y, tmp_path, dynamic="", opset=None):
    model = graph.model(y) if opset is None else graph.model_of(y, opset)
    onnx.save(model, tmp_path / "model.onnx")
    return read_network(tmp_path / "model.onnx", dynamic=dynamic), model


class Other(Graph):
    """A graph with nodes of other domains, which ONNX's checker does not know the types of."""

    def model_of(self, y, opset):
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            *(self.nodes, "graph", [value("x", TensorProto.FLOAT, self.shapes["x"])]),
            [value(y, TensorProto.FLOAT, self.shapes[y])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", opset)]
        opsets += [helper.make_opsetid(domain, 1) for domain in (QONNX, MICROSOFT)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def quant(self, x, scale, bits, zero=0, **attributes):
        numbers = [self.constant(np.float32(v)) for v in (scale, zero, bits)]
        shape = self.shapes[x] if x in self.shapes else ()
        return self.add_node("Quant", [x, *numbers], shape, domain=QONNX, **attributes)


def quant(x, scale, bits, zero=0, signed=1, narrow=0):
    """What QONNX says."""
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    return (np.rint(np.clip(x / np.float32(scale) + zero, low, high)) - zero) * np.float32(scale)


@pytest.mark.parametrize(
    ("bits", "signed", "narrow", "form"),
    [(4, 0, 0, "u4"), (3, 1, 0, "s3"), (3, 1, 1, "s3"), (2, 0, 0, "u2"), (2, 1, 1, "s2")],
)
@pytest.mark.parametrize("of", ["input", "conv"])
def test_quant_of_qonnx(of, bits, signed, narrow, form, tmp_path):
    graph = Other(np.random.default_rng(0), (1, 3, 5, 4))
    rng, x = graph.rng, "x"
    how = {"signed": signed, "narrow": narrow}
    codes = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (6, 3, 1, 1))
    scale = np.float32(2.0 ** rng.integers(-3, 1, (6, 1, 1, 1)))
    real = np.float32(codes + rng.uniform(-0.4, 0.4, codes.shape)) * scale
    w = graph.quant(graph.constant(real), scale, bits, **(how | {"signed": 1}))
    given = rng.normal(size=(1, 3, 5, 4)).astype(np.float32)
    expected = given
    if of == "conv":
        ones = graph.constant(np.eye(3, dtype=np.float32)[:, :, None, None])
        x = graph.add_node("Conv", [x, ones], (1, 3, 5, 4))
    x = graph.quant(x, 0.25, bits, **how)
    y = graph.add_node("Conv", [x, w], (1, 6, 5, 4))
    network, _ = network_of(graph, y, tmp_path, opset=19)
    conv = [step for step in network.steps if step.op.kind == "conv2d"][-1]
    assert str(conv.op.act) == form
    assert conv.op.weight.bits <= bits
    expected = quant(given, 0.25, bits, 0, signed, narrow)
    weights = quant(real, scale, bits, 0, 1, narrow)
    expected = np.einsum("ncij,oc->noij", expected, weights[:, :, 0, 0])
    (y,) = network.reference({"x": given}).values()
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


def test_bipolar_quant_of_weights(tmp_path):
    graph = Other(np.random.default_rng(0), (2, 40))
    real = graph.rng.normal(size=(40, 5)).astype(np.float32)
    names = [graph.constant(real), graph.constant(np.float32(0.5))]
    w = graph.add_node("BipolarQuant", names, real.shape, domain=QONNX)
    y = graph.add_node("MatMul", [graph.quant("x", 0.25, 4), w], (2, 5))
    network, _ = network_of(graph, y, tmp_path, opset=19)
    dense = network.steps[-1].op
    assert (str(dense.act), str(dense.weight)) == ("s4", "b1")
    x = graph.rng.normal(size=(2, 40)).astype(np.float32)
    (y,) = network.reference({"x": x}).values()
    expected = quant(x, 0.25, 4) @ np.where(real >= 0, 0.5, -0.5)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("dynamic", ["", "f32", "s8"])
@pytest.mark.parametrize(("bits", "zero"), [(4, True), (4, False), (8, True), (2, False)])
def test_matmul_nbits(bits, zero, dynamic, tmp_path):
    k, n, block = 64, 6, 32
    graph = Other(np.random.default_rng(0), (3, k))
    rng = graph.rng
    codes = rng.integers(0, 2**bits, (n, k))
    zeros = rng.integers(0, 2**bits, (n, k // block)) if zero else 2 ** (bits - 1)
    if bits == 8 and zero:
        zeros = np.full((n, k // block), 128)
    scales = rng.uniform(0.1, 1, (n, k // block)).astype(np.float32)
    inputs = ["x", graph.constant(packed(codes, bits).reshape(n, k // block, -1))]
    inputs.append(graph.constant(scales))
    inputs += [graph.constant(packed(zeros, bits))] if zero else []
    y = graph.add_node(
        *("MatMulNBits", inputs, (3, n)),
        **{"domain": MICROSOFT, "N": n, "K": k, "bits": bits, "block_size": block},
    )
    if not dynamic:
        with pytest.raises(UnservedNodes, match="--dynamic s8"):
            network_of(graph, y, tmp_path, opset=19)
        return
    network, _ = network_of(graph, y, tmp_path, dynamic, 19)
    x = rng.normal(size=(3, k)).astype(np.float32)
    spread = np.repeat(np.broadcast_to(zeros, scales.shape), block, axis=1)
    expected = x @ ((codes - spread) * np.repeat(scales, block, axis=1)).T
    (y,) = network.reference({"x": x}).values()
    error = {"f32": 1e-5, "s8": 0.02}[dynamic]
    np.testing.assert_allclose(y, expected, rtol=error, atol=error * np.abs(expected).max())
    (step,) = network.steps
    assert step.op.kind == ("conv2d_f32" if dynamic == "f32" else "dense")
    if dynamic == "s8" and not zero:
        assert (step.op.group_size, str(step.op.weight)) == (block, f"s{bits}")


def packed(codes, bits):
    """Rows of codes as bytes, the lowest bits first."""
    per = 8 // bits
    rows = np.pad(codes, ((0, 0), (0, -codes.shape[1] % per)))
    shifts = np.arange(0, 8, bits)
    return (rows.reshape(len(rows), -1, per) << shifts).sum(axis=2).astype(np.uint8)


@pytest.mark.parametrize("quantized", [True, False])
def test_blocks_of_dequantize_linear(quantized, tmp_path):
    graph = Other(np.random.default_rng(0), (3, 64))
    rng = graph.rng
    codes = rng.integers(-8, 8, (64, 6))
    tensor = helper.make_tensor("w", TensorProto.INT4, codes.shape, codes.ravel())
    graph.constants.append(tensor)
    scale = graph.constant(np.float32(2.0 ** rng.integers(-3, 1, (2, 6))))
    w = graph.add_node("DequantizeLinear", ["w", scale], (64, 6), axis=0, block_size=32)
    x = graph.quantized("x") if quantized else "x"
    y = graph.add_node("MatMul", [x, w], (3, 6))
    network, model = network_of(graph, y, tmp_path, "" if quantized else "s8", 21)
    dense = network.steps[-1].op
    assert (dense.group_size, str(dense.weight)) == (32, "s4")
    x = np.float32(rng.integers(-64, 64, (3, 64))) / 16
    (y,) = network.reference({"x": x}).values()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    error = 1e-6 if quantized else 0.02
    np.testing.assert_allclose(y, expected, rtol=error, atol=error * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["concat", "softmax", "gelu"])
def test_nodes_of_microsoft(kind, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    graph = Other(np.random.default_rng(0), (2, 6))
    names = {}
    for name, scale, zero in (("a", 0.05, 128), ("b", 0.125, 7), ("y", 1 / 256, 0)):
        names[name] = [graph.constant(np.float32(scale)), graph.constant(np.uint8(zero))]
    codes = graph.add_node("QuantizeLinear", ["x", *names["a"]], (2, 6))
    if kind == "concat":
        other = graph.add_node("QuantizeLinear", ["x", *names["b"]], (2, 6))
        inputs = [*names["b"], codes, *names["a"], other, *names["b"]]
        y = graph.add_node("QLinearConcat", inputs, (2, 12), domain=MICROSOFT, axis=1)
        y = graph.add_node("DequantizeLinear", [y, *names["b"]], (2, 12))
    elif kind == "softmax":
        inputs = [codes, *names["a"], *names["y"]]
        y = graph.add_node("QLinearSoftmax", inputs, (2, 6), domain=MICROSOFT, axis=-1, opset=13)
        y = graph.add_node("DequantizeLinear", [y, *names["y"]], (2, 6))
    else:
        y = graph.add_node("Gelu", ["x"], (2, 6), domain=MICROSOFT)
    network, model = network_of(graph, y, tmp_path, opset=19)
    x = graph.rng.normal(size=(2, 6)).astype(np.float32)
    (y,) = network.reference({"x": x}).values()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    step = {"concat": 0, "softmax": 1 / 256, "gelu": 1e-6}[kind]
    assert np.abs(y - expected).max() <= step
