import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import convs, denses

from lpgen.errors import FormatError, WorkloadError
from lpgen.formats import Format
from lpgen.ops import Conv2d, Dense, Matrix, Product


def naive_dense(op, x, w):
    y = np.zeros(op.y_shape, object)
    for m, n, k in itertools.product(range(op.m), range(op.n), range(op.k)):
        y[m, n] += int(x[m, k]) * int(w[n, k])
    return y


def naive_conv2d(op, x, w):
    """Straight from the definition; a position outside the input adds nothing."""
    y = np.zeros(op.y_shape, object)
    per_group, icg = op.oc // op.groups, op.ic // op.groups
    for n, oh, ow, oc in np.ndindex(*op.y_shape):
        for r, s, c in np.ndindex(*op.kernel, icg):
            h = oh * op.stride[0] + r * op.dilation[0] - op.pad[0]
            v = ow * op.stride[1] + s * op.dilation[1] - op.pad[1]
            if 0 <= h < op.h and 0 <= v < op.w:
                channel = oc // per_group * icg + c
                y[n, oh, ow, oc] += int(x[n, h, v, channel]) * int(w[oc, r, s, c])
    return y


def assert_exact(y, expected):
    assert y.dtype == np.int32
    assert y.shape == expected.shape
    assert np.array_equal(y.astype(np.int64), expected.astype(np.int64))


@given(denses(), st.integers(0, 2**32 - 1))
def test_dense_oracle_is_the_naive_loop(op, seed):
    x, w = op.random(np.random.default_rng(seed))
    assert_exact(op.reference(x, w), naive_dense(op, x, w))


@settings(deadline=None)
@given(convs(), st.integers(0, 2**32 - 1))
def test_conv2d_oracle_is_the_naive_loop(op, seed):
    x, w = op.random(np.random.default_rng(seed))
    assert_exact(op.reference(x, w), naive_conv2d(op, x, w))


@pytest.mark.parametrize("act", ["u8", "s8"])
def test_dense_oracle_is_onnx_matmulinteger(act):
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    op = Dense(5, 7, 33, act=act, weight="s8")
    kind = {"u8": onnx.TensorProto.UINT8, "s8": onnx.TensorProto.INT8}[act]
    x, w = op.random(np.random.default_rng(1))
    node = onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph(
        [node],
        "matmul",
        [
            onnx.helper.make_tensor_value_info("x", kind, x.shape),
            onnx.helper.make_tensor_value_info("w", onnx.TensorProto.INT8, w.T.shape),
        ],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, op.y_shape)],
    )
    run = reference.ReferenceEvaluator(onnx.helper.make_model(graph)).run
    assert_exact(op.reference(x, w), run(None, {"x": x, "w": w.T.copy()})[0])


@pytest.mark.parametrize(
    "shape",
    [
        {"h": 6, "w": 5, "ic": 3, "oc": 4, "kernel": 3, "pad": 1},
        {"h": 9, "w": 7, "ic": 2, "oc": 3, "kernel": (3, 2), "stride": 2, "pad": (0, 1, 2, 0)},
        {"h": 9, "w": 9, "ic": 2, "oc": 3, "kernel": 3, "dilation": (1, 2), "pad": (1, 2)},
        {"n": 2, "h": 5, "w": 5, "ic": 6, "oc": 4, "kernel": 3, "groups": 2, "pad": 1},
        {"h": 5, "w": 5, "ic": 4, "oc": 4, "kernel": 3, "groups": 4, "pad": 1},
    ],
)
def test_conv2d_oracle_is_onnx_convinteger(shape):
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    op = Conv2d(**shape, act="u8", weight="u8")
    x, w = op.random(np.random.default_rng(1))
    nchw = {"x": x.transpose(0, 3, 1, 2).copy(), "w": w.transpose(0, 3, 1, 2).copy()}
    node = onnx.helper.make_node(
        "ConvInteger",
        ["x", "w"],
        ["y"],
        strides=op.stride,
        pads=op.pad,
        dilations=op.dilation,
        group=op.groups,
    )
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, array.shape)
        for name, array in nchw.items()
    ]
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, None)
    graph = onnx.helper.make_graph([node], "conv", inputs, [y])
    run = reference.ReferenceEvaluator(onnx.helper.make_model(graph)).run
    expected = run(None, nchw)[0].transpose(0, 2, 3, 1)
    assert_exact(op.reference(x, w), expected)


def test_oracles_work_in_blocks(monkeypatch):
    """The blocks that bound memory do not change a result, whatever their height."""
    ops = [
        Dense(3, 50, 8, act="u8", weight="s8"),
        Conv2d(n=2, h=9, w=8, ic=4, oc=6, kernel=3, pad=1, groups=2, act="s5", weight="b3"),
    ]
    for op in ops:
        x, w = op.random(np.random.default_rng(0))
        expected = op.reference(x, w)
        for height in (1, 2, 7):
            monkeypatch.setattr("lpgen.ops.dense.rows_per_block", lambda _, height=height: height)
            monkeypatch.setattr("lpgen.ops.conv2d.rows_per_block", lambda _, height=height: height)
            assert np.array_equal(op.reference(x, w), expected)


@pytest.mark.parametrize("weight", ["s8", "u8"])
@pytest.mark.parametrize("act", ["u8", "s8", "b7"])
def test_extremes_are_exact_up_to_the_int32_limit(act, weight):
    largest = Format.parse(act).largest * Format.parse(weight).largest
    op = Dense(1, 2, (2**31 - 1) // largest, act=act, weight=weight)
    assert largest * op.k == op.bound <= 2**31 - 1
    for which in op.EXTREMES:
        x, w = op.extreme(which)
        assert_exact(op.reference(x, w), np.full((1, 2), int(x[0, 0]) * int(w[0, 0]) * op.k))
    assert len(list(op.extremes())) == 4
    k = op.k + 1
    with pytest.raises(WorkloadError, match=rf"k={k} with act={act} .*int32 limit 2147483647"):
        Dense(1, 2, k, act=act, weight=weight)


@pytest.mark.parametrize(("k", "kind"), [(258, np.float32), (259, np.float64)])
def test_float32_serves_only_below_its_exact_limit(k, kind):
    """255 * 255 * 259 is the first such sum above 2^24, where float32 loses the odd integers."""
    op = Dense(1, 1, k, act="u8", weight="u8")
    assert op._exact_float == kind
    x, w = op.extreme("max-max")
    w[0, 0] = 254
    assert op.reference(x, w).item() == 255 * 255 * k - 255


def test_padding_adds_nothing_even_where_the_format_has_no_zero():
    op = Conv2d(h=1, w=1, ic=2, oc=1, kernel=3, pad=1, act="b1", weight="b1")
    x, w = op.extreme("max-min")
    assert op.reference(x, w).tolist() == [[[[-2]]]]


def test_properties_of_a_convolution():
    op = Conv2d(
        n=2, h=9, w=8, ic=6, oc=4, kernel=(3, 2), stride=(2, 1), pad=(1, 0, 2, 3),
        dilation=(1, 2), groups=2, act="u4", weight="s3",
    )  # fmt: skip
    assert (op.padded, op.reach, op.oh, op.ow) == ((12, 11), (3, 3), 5, 9)
    assert (op.x_shape, op.w_shape) == ((2, 9, 8, 6), (4, 3, 2, 3))
    assert op.y_shape == (2, 5, 9, 4)
    assert op.matrix == Matrix(groups=2, m=90, n=2, k=18)
    assert (op.macs, op.ops) == (2 * 90 * 2 * 18, 2 * 2 * 90 * 2 * 18)
    assert op.weight_bits_total == 4 * 3 * 2 * 3 * 3
    assert not op.depthwise
    assert op.kind == "conv2d"


def test_properties_of_a_dense():
    op = Dense(3, 5, 7, act="u4", weight="b1")
    assert (op.x_shape, op.w_shape, op.y_shape) == ((3, 7), (5, 7), (3, 5))
    assert op.matrix == Matrix(1, 3, 5, 7)
    assert (op.macs, op.ops, op.weight_bits_total) == (105, 210, 35)
    assert (op.kind, op.act, op.weight, op.out) == ("dense", Format("u", 4), Format("b", 1), "s32")


def test_numbers_spread_to_tuples_and_equal_operators_are_one_key():
    given = {"h": 9, "w": 9, "ic": 4, "oc": 4, "act": "u8", "weight": "s8"}
    op = Conv2d(**given, kernel=3, stride=np.int64(2), pad=[1, 1], dilation=1)
    assert (op.kernel, op.stride, op.pad) == ((3, 3), (2, 2), (1, 1, 1, 1))
    same = Conv2d(**given, kernel=(3, 3), stride=(2, 2), pad=(1, 1, 1, 1))
    assert {op: 1}[same] == 1
    assert pickle.loads(pickle.dumps(op)) == op
    assert type(op.stride[0]) is int
    with pytest.raises(WorkloadError, match="m=True is not a size"):
        Dense(True, 2, 3, "u8", "s8")


BASE = {"h": 8, "w": 8, "ic": 64, "oc": 64, "kernel": 3, "act": "u8", "weight": "s8"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 3}, "^conv2d: groups=3 does not divide ic=64$"),
        ({"ic": 63, "groups": 3}, "^conv2d: groups=3 does not divide oc=64$"),
        ({"h": 2}, r"^conv2d: kernel=3x3 spans 3, more than the padded input's h=2$"),
        ({"w": 2, "pad": (1, 0)}, r"padded input's w=2$"),
        ({"dilation": 4}, r"kernel=3x3 spans 9 with its dilation, more than .* h=8"),
        ({"n": 0}, r"^conv2d: n=0 is outside 1\.\.2147483647$"),
        ({"kernel": (0, 3)}, r"^conv2d: kernel=0x3 is outside 1\.\."),
        ({"stride": 0}, r"^conv2d: stride=0 is outside 1\.\."),
        ({"pad": (0, 0, -1, 0)}, r"^conv2d: pad=0x0x-1x0 is outside 0\.\."),
        ({"pad": (1, 2, 3)}, r"pad=\(1, 2, 3\) is not a size: 3 numbers, expected 1, 2 or 4"),
        ({"kernel": (1, 2, 3)}, r"kernel=\(1, 2, 3\) is not a size: 3 numbers, expected 1 or 2"),
        ({"h": 2.5}, r"h=2\.5 is not a size"),
        ({"oc": "64"}, r"oc='64' is not a size"),
        ({"act": "u9"}, r"^conv2d: act: format u9: bits must be 1\.\.8"),
        ({"weight": "b8"}, r"^conv2d: weight: format b8: bits must be 1\.\.7"),
        ({"zero_act": 256}, r"^conv2d: zero_act=256 is outside 0\.\.255 \(u8\)$"),
        (
            {"weight": "b1", "zero_weight": 1},
            "^conv2d: zero_weight=1: format b1 has no zero point$",
        ),
        ({"n": 2**20}, r"x has 4294967296 elements .*the limit is 2147483647"),
        ({"pad": 2**31 - 1}, r"h=4294967302 with its padding is above the limit 2147483647"),
        ({"pad": 2**15, "stride": 2**14}, "x with its padding has more elements than the limit 2"),
        ({"oc": 2**23}, r"w has 4831838208 elements .*the limit is 2147483647"),
        ({"ic": 2**14}, r"k=147456 with act=u8 weight=s8 may reach 4812963840.* k may be 65793 at"),
    ],
)
def test_shapes_that_cannot_be(change, message):
    with pytest.raises(WorkloadError, match=message) as caught:
        Conv2d(**(BASE | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 1, 1), r"^dense: m=0 is outside"),
        ((1, -1, 1), r"^dense: n=-1 is outside"),
        ((1, 1, 2**31), r"^dense: k=2147483648 is outside 1\.\.2147483647"),
        ((2**16, 2**16, 1), r"^dense: y has 4294967296 elements \(65536, 65536\), the limit"),
        ((1, 1, 65794), r"^dense: k=65794 with act=u8 weight=s8 may reach 2147516160, above the"),
    ],
)
def test_dense_shapes_that_cannot_be(shape, message):
    with pytest.raises(WorkloadError, match=message):
        Dense(*shape, act="u8", weight="s8")


def test_the_oracle_refuses_inputs_of_another_kind():
    op = Dense(2, 3, 4, act="u2", weight="s2")
    x, w = op.random(np.random.default_rng(0))
    with pytest.raises(WorkloadError, match=r"dense: x has shape \(4, 2\), expected \(2, 4\)"):
        op.reference(x.T, w)
    w[1, 2] = 2
    with pytest.raises(FormatError, match=r"w\[1, 2\] = 2 is not a value of s2: integers -2\.\.1"):
        op.reference(x, w)
    with pytest.raises(WorkloadError, match="extreme 'mid' is unknown; known: max-max, max-min"):
        op.extreme("mid")


def test_a_class_of_operators_that_lacks_a_part_makes_none():
    class Shapeless(Product):
        kind = "shapeless"

    with pytest.raises(TypeError, match=r"abstract methods .*label.*matrix.*smallest.*w_shape"):
        Shapeless()
