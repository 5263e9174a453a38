"""ONNX: its own tests of nodes run through lpgen's kernels, and nodes of any shape as operators."""

import numpy as np
import onnx_backend
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")

from onnx.backend.test.runner import Runner, _normalize_tensor  # noqa: E402

from lpgen.errors import OnnxError  # noqa: E402
from lpgen.onnx import TensorType, import_node  # noqa: E402
from lpgen.ops import Conv2d, Dense  # noqa: E402

CASES = {case.name: case for case in onnx_backend.cases()}


# What lpgen has no numbers for: the part of a case's name -> what is said about it.
MISSING = {
    "e4m3fn": "has type float8_e4m3fn,",
    "e5m2": "has type float8_e5m2,",
    "float4e2m1": "has type float4_e2m1fn,",
    "uint16": "has type uint16,",
    "int16": "has type int16,",
    "quantizelinear_blocked_symmetric": "y has type int16,",
}


def test_every_operator_has_cases():
    kinds = {case.model.graph.node[0].op_type for case in CASES.values()}
    assert kinds == set(onnx_backend.KINDS)


@pytest.mark.parametrize("name", CASES)
def test_node(name):
    case = CASES[name]
    rep = onnx_backend.backend().prepare(case.model)
    for part, reason in MISSING.items():
        if part in name:
            with pytest.raises(OnnxError, match=reason):
                rep.run([_normalize_tensor(tensor) for tensor in case.data_sets[0][0]])
            pytest.skip(reason)
    for inputs, outputs in case.data_sets:
        found = rep.run([_normalize_tensor(tensor) for tensor in inputs])
        expected = [_normalize_tensor(tensor) for tensor in outputs]
        Runner.assert_similar_outputs(expected, found, rtol=0, atol=0)


def tensor(rng, shape, dtype):
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


def requantized(sums, scale, zero):
    """Sums with channels last, as ONNX describes it: rounded half to even before the zero point."""
    limits = np.iinfo(zero.dtype)
    rounded = np.rint(sums.astype(np.float32) * scale.astype(np.float32)).astype(np.int64)
    return np.clip(rounded + zero.item(), limits.min, limits.max).astype(zero.dtype)


dtypes = st.sampled_from(["uint8", "int8"])
seeds = st.integers(0, 2**32 - 1)
pairs = st.lists(st.integers(1, 3), min_size=2, max_size=2)


@st.composite
def conv_nodes(draw):
    """(attributes, x shape, w shape) of convolutions in one or two dimensions."""
    axes, group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    sizes, kernel = draw(pairs)[:axes], draw(pairs)[:axes]
    sizes = [size + 4 for size in sizes]
    attributes = {"strides": draw(pairs)[:axes], "dilations": draw(pairs)[:axes], "group": group}
    attributes["kernel_shape"] = kernel
    padding = draw(st.sampled_from(["NOTSET", "pads", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if padding == "pads":
        attributes["pads"] = [size - 1 for size in draw(pairs)[:axes] * 2]
    elif padding != "NOTSET":
        attributes["auto_pad"] = padding
    n, ic, oc = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    if padding == "pads":
        spans = [size + 2 * p for size, p in zip(sizes, attributes["pads"], strict=False)]
    else:
        spans = sizes
    reach = zip(kernel, attributes["dilations"], spans, strict=True)
    assume(all((k - 1) * d < span for k, d, span in reach))
    return attributes, (n, ic * group, *sizes), (oc * group, ic, *kernel)


def conv_sums(x, w, attributes):
    """The convolution by ONNX's reference, in float64."""
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    double = onnx.TensorProto.DOUBLE
    values = [onnx.helper.make_tensor_value_info(n, double, None) for n in "xwy"]
    graph = onnx.helper.make_graph([node], "conv", values[:2], values[2:])
    model = onnx.helper.make_model(graph)
    evaluator = onnx.reference.ReferenceEvaluator(model)
    (y,) = evaluator.run(None, {"x": x.astype(np.float64), "w": w.astype(np.float64)})
    return y.astype(np.int64)


@settings(deadline=None)
@given(conv_nodes(), st.tuples(dtypes, dtypes, dtypes), st.booleans(), st.booleans(), seeds)
def test_convolutions_equal_the_reference(shapes, types, each, bias, seed):
    (attributes, x_shape, w_shape), rng = shapes, np.random.default_rng(seed)
    x, w = tensor(rng, x_shape, types[0]), tensor(rng, w_shape, types[1])
    channels = (len(w),) if each else ()
    x_zero, w_zero = tensor(rng, (), types[0]), tensor(rng, channels, types[1])
    real_w = w.astype(int) - np.reshape(w_zero, (-1, *[1] * (w.ndim - 1)))
    sums = conv_sums(x.astype(int) - int(x_zero), real_w, attributes)

    node = onnx.helper.make_node("ConvInteger", ["x", "w", "xz", "wz"], ["y"], **attributes)
    constants = {"w": w, "xz": x_zero, "wz": w_zero}
    imported = import_node(node, TensorType(x.shape, types[0]), constants)
    np.testing.assert_array_equal(imported.reference(x), sums.astype(np.int32), strict=True)

    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", *["b"] * bias]
    node = onnx.helper.make_node("QLinearConv", names, ["y"], **attributes)
    scales = {name: np.float32(rng.uniform(0.5, 2)) for name in ("xs", "ys")}
    constants |= scales | {"ws": rng.uniform(0.001, 0.01, channels).astype(np.float32)}
    constants |= {"yz": tensor(rng, (), types[2]), "b": rng.integers(-999, 999, len(w), np.int32)}
    imported = import_node(node, TensorType(x.shape, types[0]), constants)
    last = np.moveaxis(sums, 1, -1) + constants["b"] * bias
    scale = constants["xs"] * constants["ws"] / constants["ys"]
    expected = np.moveaxis(requantized(last, scale, constants["yz"]), -1, 1)
    np.testing.assert_array_equal(imported.reference(x), expected, strict=True)


@st.composite
def matmul_shapes(draw):
    """(a, b): any batches that go together, vectors too."""
    batch = draw(st.lists(st.integers(1, 3), max_size=3))
    m, n, k = (draw(st.integers(1, 5)) for _ in range(3))

    def side(*matrix):
        kept = [size if draw(st.booleans()) else 1 for size in batch]
        return (*kept[draw(st.integers(0, len(kept))) :], *matrix)

    a = (k,) if draw(st.integers(0, 5)) == 0 else side(m, k)
    b = (k,) if draw(st.integers(0, 5)) == 0 else side(k, n)
    return a, b


@settings(deadline=None)
@given(matmul_shapes(), st.tuples(dtypes, dtypes, dtypes), st.integers(0, 2), seeds)
def test_matrix_products_equal_numpy(shapes, types, axes, seed):
    rng = np.random.default_rng(seed)
    a, b = (tensor(rng, shape, t) for shape, t in zip(shapes, types, strict=False))
    # One zero point and scale, those of columns, or those of the columns of every matrix.
    each = [(), b.shape[-1:] * (b.ndim > 1), (*b.shape[:-2], 1, *b.shape[-1:])][axes]
    each = each if b.ndim > 1 else ()
    a_zero, b_zero = tensor(rng, (1,), types[0]), tensor(rng, each, types[1])
    sums = (a.astype(int) - a_zero) @ (b.astype(int) - b_zero)

    node = onnx.helper.make_node("MatMulInteger", ["a", "b", "az", "bz"], ["y"])
    constants = {"b": b, "az": a_zero, "bz": b_zero}
    imported = import_node(node, TensorType(a.shape, types[0]), constants)
    expected = np.asarray(sums).astype(np.int32)
    np.testing.assert_array_equal(imported.reference(a), expected, strict=True)

    node = onnx.helper.make_node(
        "QLinearMatMul", ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], ["y"]
    )
    constants |= {name: rng.uniform(0.5, 2, 1).astype(np.float32) for name in ("as", "ys")}
    constants |= {"bs": rng.uniform(0.001, 0.01, each).astype(np.float32)}
    constants |= {"yz": tensor(rng, (1,), types[2])}
    imported = import_node(node, TensorType(a.shape, types[0]), constants)
    scale = constants["as"] * constants["bs"] / constants["ys"]
    if a.ndim == 1 and scale.ndim > 1:
        scale = scale[..., 0, :]
    if scale.size == 1:
        scale = scale.reshape(())
    expected = np.asarray(requantized(sums, scale, constants["yz"]))
    np.testing.assert_array_equal(imported.reference(a), expected, strict=True)


def test_batches_take_the_fewest_products():
    def op_of(a, b):
        node = onnx.helper.make_node("MatMulInteger", ["a", "b"], ["y"])
        constants = {"b": np.full(b, 2, np.int8)}
        return import_node(node, TensorType(a, "uint8"), constants).op

    assert op_of((2, 3, 4, 5), (5, 6)) == Dense(24, 6, 5, "u8", "s8")
    assert op_of((4, 5), (2, 3, 5, 6)) == Dense(4, 36, 5, "u8", "s8")
    both = Conv2d(h=8, w=1, ic=15, oc=18, kernel=1, groups=3, act="u8", weight="s8")
    assert op_of((2, 3, 4, 5), (3, 5, 6)) == both


def test_zero_points_of_weights_vanish_where_the_differences_fit():
    node = onnx.helper.make_node("MatMulInteger", ["a", "b", "", "bz"], ["y"])
    b = np.array([[100, 200], [150, 250]], np.uint8)

    def op_of(*zeros):
        constants = {"b": b, "bz": np.array(zeros, np.uint8)}
        return import_node(node, TensorType((1, 2), "uint8"), constants)

    assert op_of(128).op == Dense(1, 2, 2, "u8", "s8")
    np.testing.assert_array_equal(op_of(128).weights, b.T.astype(int) - 128)
    assert op_of(128, 255).op == Dense(1, 2, 2, "u8", "s8")
    assert op_of(0).op == Dense(1, 2, 2, "u8", "u8")
    assert op_of(1).op == Dense(1, 2, 2, "u8", "u8", zero_weight=1)
    assert op_of(1, 2).op == Dense(1, 2, 2, "u8", "u8", zero_weight="channel")


@pytest.mark.parametrize(
    ("kind", "x", "changes", "message"),
    [
        ("Gemm", (2, 3), {}, "^Gemm is none of Abs, Add, AveragePool, Clip, "),
        ("MatMulInteger", (2, 3), {"w": None}, "^MatMulInteger: input 'w' is no constant$"),
        ("MatMulInteger", (2, 4), {}, r"shapes \(2, 4\) and \(3, 2\) do not match: k is 4 and 3$"),
        ("MatMulInteger", (0, 3), {}, r"x has shape \(0, 3\), which is empty$"),
        ("MatMulInteger", (2, 3), {"w": np.ones((3, 2), np.int16)}, "weights has type int16"),
        ("MatMulInteger", (2, 3), {"xz": np.uint8([1, 2])}, "a_zero_point has 2 different values"),
        ("ConvInteger", (1, 1, 4, 4, 4), {}, "x has 5 axes and w has 2, lpgen has 3 or 4 for both"),
        ("ConvInteger", (1, 3, 4), {"w": np.ones((2, 2, 2), np.int8)}, "but x has 3 channels$"),
        ("ConvInteger", (1, 1, 1), {"w": np.ones((2, 1, 2), np.int8)}, "more than the padded"),
    ],
)
def test_nodes_that_no_operator_computes(kind, x, changes, message):
    node = onnx.helper.make_node(kind, ["x", "w", "xz"], ["y"])
    constants = {"w": np.ones((3, 2), np.int8), "xz": np.uint8(3)} | changes
    constants = {name: value for name, value in constants.items() if value is not None}
    with pytest.raises(OnnxError, match=message) as caught:
        import_node(node, TensorType(x, "uint8"), constants)
    assert "\n" not in str(caught.value)
