"""Damaged ONNX nodes: an OnnxError in one line, or what the node still means, nothing else."""

import re
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from lpgen.errors import OnnxError  # noqa: E402
from lpgen.onnx import TensorType, import_node  # noqa: E402

F32, U8, S8, S32 = np.float32, np.uint8, np.int8, np.int32
REQUANTIZED = ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"]


class Node(NamedTuple):
    """A node before it is made: shapes and dtypes of its inputs by their names, its attributes."""

    kind: str
    inputs: dict
    attributes: dict


def requantized(x, w, each, **more):
    types = ((x, U8), ((), F32), ((), U8), (w, S8), (each, F32), (each, S8), ((), F32), ((), U8))
    return dict(zip(REQUANTIZED, types, strict=True)) | more


def summed(x, w, each):
    return {"x": (x, S8), "w": (w, U8), "x_zero": ((), S8), "w_zero": (each, U8)}


def linear(x, scale, dtype, other):
    return {"x": (x, dtype), "scale": (scale, F32), "zero": (scale, other)}


WHOLE = [
    Node("QLinearConv", requantized((1, 4, 5, 4), (4, 2, 3, 2), (4,)), {"group": 2}),
    Node("QLinearConv", requantized((1, 2, 6), (4, 2, 3), (), bias=((4,), S32)), {"pads": [1, 0]}),
    Node("ConvInteger", summed((2, 3, 4, 5), (4, 3, 2, 2), (4,)), {"strides": [2, 1]}),
    Node("ConvInteger", summed((2, 3, 5), (4, 3, 2), ()), {"auto_pad": "SAME_UPPER"}),
    Node("QLinearMatMul", requantized((2, 3), (3, 4), (4,)), {}),
    Node("QLinearMatMul", requantized((2, 3, 5), (2, 5, 4), (2, 1, 4)), {}),
    Node("MatMulInteger", summed((3, 4), (4, 4), (4,)), {}),
    Node("MatMulInteger", summed((2, 1, 3), (3, 2), ()), {}),
    Node("QuantizeLinear", linear((3, 4), (4,), F32, U8), {"axis": 1}),
    Node("QuantizeLinear", linear((3, 4), (3, 2), F32, S8), {"axis": -1, "block_size": 2}),
    Node("DequantizeLinear", linear((3, 4), (), U8, U8), {}),
    Node("DequantizeLinear", linear((2, 3, 4), (3,), S8, S8), {}),
]


def values(rng, shape, dtype):
    """Numbers for a tensor of the dtype; scales are positive."""
    if np.dtype(dtype).kind in "fcO":
        return np.asarray(rng.uniform(0.5, 2, shape)).astype(dtype)
    if dtype == S32:
        return np.asarray(rng.integers(-99, 100, shape)).astype(dtype)
    return np.asarray(rng.integers(-128, 128, shape)).astype(dtype)


shapes = st.one_of(
    st.lists(st.integers(0, 5), max_size=5).map(tuple),
    st.sampled_from([(), (1,), (2,), (3,), (4,), (1, 1), (1, 4), (2, 1, 4), (3, 2)]),
)
dtypes = st.sampled_from(
    [*"bBhHiIlLefd?FO", "datetime64[s]", "U3", "float32", "float16", "uint8", "int8"]
).map(np.dtype)
ints = st.lists(st.integers(-1, 4), max_size=5)
NAMES = "strides pads dilations kernel_shape group auto_pad axis block_size output_dtype precision"
AUTO_PADS = ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER", "SAME", ""]
attributes = st.tuples(
    st.sampled_from([*NAMES.split(), "saturate", "unknown"]),
    st.one_of(
        ints, st.integers(-2, 30), st.sampled_from(AUTO_PADS), st.floats(-2, 2), st.just(2**62)
    ),
)


@st.composite
def damaged(draw):
    """One of WHOLE with one or two changes, as (kind, inputs, attributes)."""
    kind, inputs, own = draw(st.sampled_from(WHOLE))
    inputs, own = dict(inputs), dict(own)
    for _ in range(draw(st.integers(1, 2))):
        what = draw(st.sampled_from(["shape", "dtype", "drop", "more", "attribute", "attribute"]))
        name = draw(st.sampled_from(sorted(inputs)))
        shape, dtype = inputs[name] or ((), F32)
        if what == "shape":
            inputs[name] = draw(shapes), dtype
        elif what == "dtype":
            inputs[name] = shape, draw(dtypes)
        elif what == "drop":
            inputs[name] = None
        elif what == "more":
            inputs[f"more{len(inputs)}"] = draw(shapes), draw(dtypes)
        else:
            key, value = draw(attributes)
            own[key] = value
    return kind, inputs, own


def made(kind, inputs, own):
    """The node; an input that is None has no name."""
    names = [name if inputs[name] else "" for name in inputs]
    node = helper.make_node(kind, names, ["y"])
    for key, value in own.items():
        typed = onnx.AttributeProto.INTS if value == [] else None
        node.attribute.append(helper.make_attribute(key, value, attr_type=typed))
    return node


def expected(kind, x, constants, own):
    """The result by NumPy and ONNX's reference; an exception where the shapes do not fit."""
    if kind in ("QuantizeLinear", "DequantizeLinear"):
        return _reference(kind, [x, *constants.values()], list(constants), own)
    w, axes = constants["w"].astype(int), len(x.shape)
    x_zero = constants.get("x_zero", np.zeros((), x.dtype)).astype(int)
    w_zero = constants.get("w_zero", np.zeros((), w.dtype)).astype(int)
    if "Conv" in kind:
        real_w = w - (w_zero.reshape(-1, *[1] * (axes - 1)) if w_zero.ndim else w_zero)
        assert x_zero.size == 1
        assert real_w.shape == w.shape
        real_x = (x.astype(int) - x_zero.ravel()[0]).astype(np.float64)
        sums = _reference("Conv", [real_x, real_w.astype(np.float64)], ["w"], own).astype(int)
        sums = np.moveaxis(sums, 1, -1)
    else:
        sums = np.asarray((x.astype(int) - _rows(x_zero)) @ (w - w_zero))
    if "y_scale" not in constants:
        y = sums.astype(np.int32)
    else:
        sums = sums + constants.get("bias", 0)
        names = ("x_scale", "w_scale", "y_scale")
        x_scale, w_scale, y_scale = (constants[name].astype(F32) for name in names)
        scale = x_scale.ravel()[0] * w_scale / y_scale.ravel()[0]
        zero = constants["y_zero"]
        assert scale.ndim <= sums.ndim or "Conv" not in kind
        real = np.asarray(sums.astype(F32) * scale).reshape(sums.shape)
        limits = np.iinfo(zero.dtype)
        y = np.clip(np.rint(real) + zero.ravel()[0], limits.min, limits.max).astype(zero.dtype)
    return np.moveaxis(y, -1, 1) if "Conv" in kind else y


def _rows(zeros):
    return zeros[:, None] if zeros.ndim == 1 and zeros.size > 1 else zeros


def _reference(kind, arrays, constants, own):
    names = ["x", *constants]
    own = {key: value for key, value in own.items() if value != []}  # it has no defaults for those
    node = made(kind, dict.fromkeys(names, True), own)
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, arrays, strict=True)
    ]
    y = helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)
    model = helper.make_model(helper.make_graph([node], "node", infos, [y]))
    (result,) = ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))
    return result


def served(kind, inputs, own, seed=0):
    """(the node as an operator, x, constants)."""
    rng = np.random.default_rng(seed)
    given = {n: values(rng, *type_) for n, type_ in inputs.items() if type_ and "U" != type_[1]}
    x = given.pop("x", None)
    shape, dtype = inputs["x"] or ((), F32)
    imported = import_node(made(kind, inputs, own), TensorType(shape, np.dtype(dtype).name), given)
    return imported, x, given


@pytest.mark.parametrize("node", WHOLE, ids=lambda node: node.kind)
def test_whole_nodes_are_served(node):
    imported, x, constants = served(*node)
    np.testing.assert_array_equal(
        imported.reference(x), expected(node.kind, x, constants, node.attributes)
    )


def changed(name, value, **attributes):
    """A QLinearConv of four channels with one other constant: (node, x, constants)."""
    kind, inputs, own = WHOLE[0]
    rng = np.random.default_rng(0)
    constants = {n: values(rng, *type_) for n, type_ in inputs.items() if n != "x"}
    if name:
        constants[name] = value
    return made(kind, dict.fromkeys(inputs, True), own | attributes), constants


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("w_scale", F32([1, 2, 3]), r"w_scale has shape \(3,\), expected \(\) or \(1,\) or \(4,\)"),
        (
            "w_zero",
            S8([1, 2, 3]),
            r"w_zero_point has shape \(3,\), expected \(\) or \(1,\) or \(4,",
        ),
        ("w_zero", U8([1, 2, 3, 4]), "w_zero_point has type uint8, expected int8"),
        ("x_zero", U8([1, 1]), r"x_zero_point has shape \(2,\), expected \(\) or \(1,\)"),
        ("x_zero", S8(1), "x_zero_point has type int8, expected uint8"),
        ("x_zero", [1], "x_zero_point has type int64, expected uint8"),
        ("y_zero", np.uint16(3), "y_zero_point has type uint16, lpgen has uint8, int8"),
        ("y_scale", F32(0), r"scale\[0\] = inf is outside"),
        ("w_scale", F32(np.nan), r"scale\[0\] = nan is outside"),
        ("w_scale", np.float64(1), "w_scale has type float64, expected float32 or float16 or bfl"),
        ("w", None, "the tensor of weights has type object, lpgen has uint8, int8"),
        ("w", [[1], [2, 3]], "w: list is no array"),
        ("w", np.ones((4, 2, 0, 2), S8), r"w has shape \(4, 2, 0, 2\), which is empty"),
    ],
)
def test_constants_that_do_not_fit(name, value, message):
    node, constants = changed(name, value)
    with pytest.raises(OnnxError, match=f"^QLinearConv: ({message})") as caught:
        import_node(node, TensorType((1, 4, 5, 4), "uint8"), constants)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"strides": [2]}, r"strides=\[2\], expected 2 of 1 or more for x and w"),
        ({"strides": [0, 1]}, r"strides=\[0, 1\], expected 2 of 1"),
        ({"dilations": [1, 1, 1]}, r"dilations=\[1, 1, 1\], expected 2 of 1"),
        ({"pads": [1, 1]}, r"pads=\[1, 1\], expected 4 of 0 or more"),
        ({"pads": [0, 0, -1, 0]}, r"pads=\[0, 0, -1, 0\], expected 4 of 0"),
        ({"pads": [1, 0, 0, 0], "auto_pad": "VALID"}, r"pads=\[1, 0, 0, 0\] beside auto_pad=VALID"),
        ({"kernel_shape": [2]}, r"kernel_shape=\[2\], but w has \[3, 2\]"),
        ({"group": 3}, "conv2d: groups=3 does not divide ic=4"),
        ({"group": 1}, r"w has shape \(4, 2, 3, 2\), but x has 4 channels"),
        ({"auto_pad": b"\xff"}, "auto_pad=\ufffd is none of NOTSET"),
        ({"strides": "11"}, "Mismatched attribute type in ' : strides'. Expected: 'INTS', actual"),
        ({"speed": 3}, "Unrecognized attribute: speed"),
    ],
)
def test_attributes_that_do_not_fit(attributes, message):
    node, constants = changed(None, None, **attributes)
    with pytest.raises(OnnxError, match=f"^QLinearConv: {message}"):
        import_node(node, TensorType((1, 4, 5, 4), "uint8"), constants)


def test_inputs_that_are_not_there():
    node, constants = changed(None, None)
    x = TensorType((1, 4, 5, 4), "uint8")
    node.input[3] = ""
    with pytest.raises(OnnxError, match="input 3 is marked single but has an empty string"):
        import_node(node, x, constants)
    del node.input[3:]
    with pytest.raises(OnnxError, match=r"has input size 3 not in range \[min=8, max=9\]"):
        import_node(node, x, constants)
    node.domain = "com.microsoft"
    with pytest.raises(OnnxError, match=r"^com\.microsoft\.QLinearConv is none of Abs, Add"):
        import_node(node, x, constants)
    node, constants = changed(None, None)
    node.input.append("")  # the bias
    node.domain = "ai.onnx"
    assert import_node(node, x, constants).op.name.endswith("out=u8 scale=channel zero_out=227")
    for type_ in (("n", 4, 5, 4), "uint8"), ((None, 4, 5, 4), "uint8"), None, ((1, 4), "u1", 3):
        with pytest.raises(OnnxError, match="expected a TensorType of known sizes"):
            import_node(node, type_, constants)
    for dtype in ("float8", "int4", None, np.dtype("u1,u1")):
        with pytest.raises(OnnxError, match=r"^QLinearConv: x has type .*, lpgen has uint8, int8"):
            import_node(node, TensorType((1, 4, 5, 4), dtype), constants)


def test_a_bias_that_leaves_int32_is_refused_at_once():
    node, constants = changed(None, None)
    node.input.append("bias")
    constants["bias"] = S32([0, 0, 0, 2**31 - 1])
    with pytest.raises(OnnxError, match=r"bias\[3\] = 2147483647 is outside"):
        import_node(node, TensorType((1, 4, 5, 4), "uint8"), constants)


def test_tensors_have_the_shape_of_the_node():
    node, constants = changed(None, None)
    imported = import_node(node, TensorType((1, 4, 5, 4), "uint8"), constants)
    x = np.zeros((1, 4, 5, 4), U8)
    assert imported.x(x).shape == (1, 5, 4, 4)
    for shape in ((1, 5, 4, 4), (4, 5, 4), (80,)):
        message = f"the tensor has shape {shape}, expected (1, 4, 5, 4)"
        with pytest.raises(OnnxError, match=f"^{re.escape(message)}$"):
            imported.x(x.reshape(shape))
    with pytest.raises(OnnxError, match=r"expected \(1, 3, 3, 4\)$"):
        imported.y(np.zeros((1, 4, 3, 3), U8))


@settings(deadline=None, max_examples=150)
@given(damaged(), st.integers(0, 2**32 - 1))
def test_damaged_nodes_are_refused_or_mean_the_same(node, seed):
    kind, inputs, own = node
    try:
        imported, x, constants = served(kind, inputs, own, seed)
    except OnnxError as error:
        event("refused")
        text = str(error)
    else:
        event("served")
        np.testing.assert_array_equal(imported.reference(x), expected(kind, x, constants, own))
        return
    assert "\n" not in text
    assert text.startswith(f"{kind}: ")
