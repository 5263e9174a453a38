"""Networks for several sizes of their inputs in one library."""

import ctypes
import gc
import json
import weakref

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from lpgen import runtime  # noqa: E402
from lpgen.cli import app  # noqa: E402
from lpgen.errors import LibraryError  # noqa: E402
from lpgen.network import build  # noqa: E402
from lpgen.onnx import read_network  # noqa: E402
from lpgen.target import Target, cpu_features  # noqa: E402

SIZES = ((1, 3, 12, 20), (2, 3, 12, 20), (1, 3, 7, 9))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Codes of any number of images of any size: a convolution, the mean, a dense layer."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("sizes") / "model.onnx"
    node = helper.make_node
    constants = {
        "s": np.float32(2**-5),
        "z": np.uint8(0),
        "w": rng.integers(-8, 8, (32, 3, 3, 3)).astype(np.int8),
        "v": rng.integers(-128, 128, (10, 32)).astype(np.int8),
        "ws": np.float32(2**-6),
    }
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "ws"], ["wd"]),
        node("Conv", ["d", "wd"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["r"]),
        node("QuantizeLinear", ["r", "s", "z"], ["rq"]),
        node("DequantizeLinear", ["rq", "s", "z"], ["rd"]),
        node("GlobalAveragePool", ["rd"], ["m"]),
        node("QuantizeLinear", ["m", "s", "z"], ["mq"]),
        node("DequantizeLinear", ["mq", "s", "z"], ["md"]),
        node("Flatten", ["md"], ["f"]),
        node("DequantizeLinear", ["v", "ws"], ["vd"]),
        node("Gemm", ["f", "vd"], ["y"], transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, "h", "w"))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 10))
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "sizes", [x], [y], tensors)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def library(model):
    out = model.with_name("model.so")
    shapes = ",".join("x".join(map(str, size)) for size in SIZES)
    assert app.run(["compile", str(model), "-o", str(out), "--shape", f"x={shapes}"]) == 0
    return out


def test_the_shapes_of_inputs_say_which_version_runs(library, model):
    network = runtime.load(library).network
    assert [version.inputs["x"].shape for version in network.versions] == [*SIZES]
    rng = np.random.default_rng(1)
    for size in reversed(SIZES):
        x = rng.normal(size=size).astype(np.float32)
        (expected,) = read_network(model, {"x": size}).reference({"x": x}).values()
        assert np.array_equal(network(x), expected)
        out = np.zeros_like(expected)
        network.bind(x, out=out, threads=2)()
        assert np.array_equal(out, expected)


def test_a_network_that_nobody_holds_is_gone_at_once(library):
    """Its arena, too: no reference cycle keeps it until the garbage is collected."""
    network = runtime.Library(library).network
    network(np.zeros(SIZES[2], np.float32))
    gone = [weakref.ref(version) for version in network.versions]
    gc.disable()
    try:
        del network
        assert [version() for version in gone] == [None] * 3
    finally:
        gc.enable()


def test_other_shapes_are_an_error_that_names_those_that_are_there(library):
    network = runtime.load(library).network
    message = r"^network model: x \[1, 3, 8, 8\]: it was compiled for x \[1, 3, 12, 20\]; x \[2, "
    with pytest.raises(LibraryError, match=message):
        network(np.zeros((1, 3, 8, 8), np.float32))


@pytest.mark.parametrize("target", ["generic", "avx2"])
def test_weights_are_there_once(model, tmp_path, target):
    if Target.parse(target).missing_on(cpu_features()):
        pytest.skip(f"this CPU lacks instructions of {target}")
    networks = [read_network(model, {"x": size}) for size in SIZES]
    one, all_ = tmp_path / "one.so", tmp_path / "all.so"
    build(networks[0], target, one)
    build(networks, target, all_)
    sizes = [runtime.load(path).network.constant_bytes for path in (one, all_)]
    assert sizes[1] <= sizes[0] + 64 * 8  # scales and the like differ


def test_check_show_and_bench_go_through_all_versions(library, model, lpgen):
    shapes = ",".join("x".join(map(str, size)) for size in SIZES)
    checked = lpgen("check", str(library), "--model", str(model), "--shape", f"x={shapes}")
    assert checked.count("are as the oracle and their kernels alone") == 3
    shown = [json.loads(text) for text in lpgen("show", str(library), "--json").splitlines()]
    names = [entry["network"]["name"] for entry in shown if "network" in entry]
    assert names == ["model", "model_1", "model_2"]


def test_weights_beside_serve_all_versions(model, tmp_path):
    out = tmp_path / "beside.so"
    networks = [read_network(model, {"x": size}) for size in SIZES]
    build(networks, "generic", out, weights_beside=True)
    versions = runtime.load(out).versions
    x = np.ones(SIZES[2], np.float32)
    (expected,) = networks[2].reference({"x": x}).values()
    assert np.array_equal(versions[2](x), expected)


def test_each_version_has_functions_in_c(library):
    text = library.with_suffix(".h").read_text()
    for name in ("model_run", "model_1_run", "model_2_run", "model_2_arena_bytes"):
        assert f" {name}(" in text
    code = ctypes.CDLL(str(library))
    code.model_2_arena_bytes.restype = ctypes.c_size_t
    assert code.model_2_arena_bytes(1) < runtime.load(library).network.arena_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shape", "x=1x3x8x8,2x3"), "x has 4 axes"),
        (("--shape", "x=1x3x8x8,"), "is not NAME=SIZExSIZE"),
        (("--shape", "x=1x3x8x8,1x3x9x9", "--shape", "y=1,2,3"), "2 sizes of x and 3"),
        (("--shape", "x=1x3x8x8,1x3x9x9", "--ort", "left.onnx"), "--ort takes one size"),
    ],
)
def test_mistakes_are_one_line(model, arguments, message, lpgen, home):
    said = lpgen("compile", str(model), "-o", "no.so", *arguments, status=2)
    assert message in said
    assert said.count("\n") == 1
    assert not [path for path in home.iterdir() if path.is_file()]
