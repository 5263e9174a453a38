"""Models as users have them: PP-OCRv4 of rapidocr-onnxruntime, quantized by onnxruntime."""

import importlib.util
from collections import Counter

import numpy as np
import pytest

for package in ("onnx", "onnxruntime", "matplotlib", "PIL", "rapidocr_onnxruntime"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'lpgen[cases]'", True)

import ocr_models  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from emulated import emulator_of  # noqa: E402

from lpgen.onnx import read_network  # noqa: E402


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """The path of a quantized model by its name."""
    folder, found = tmp_path_factory.mktemp("models"), {}

    def path(name):
        if name not in found:
            found[name] = ocr_models.quantized(name, folder, images=2)
        return found[name]

    return path


def theirs(path, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("cls", {"conv2d": 53, "dense": 1, "mul": 9, "softmax": 1}),
        pytest.param(
            *("rec", {"conv2d": 38, "dense": 9, "matmul": 4, "softmax": 3, "layer_norm": 5}),
            marks=pytest.mark.nightly,
        ),
        pytest.param(*("det", {"conv2d": 63, "dense": 2, "resize": 6}), marks=pytest.mark.nightly),
    ],
)
def test_the_whole_model_is_served(name, kinds, quantized):
    network = read_network(quantized(name))
    found = Counter(step.op.kind for step in network.steps)
    assert {kind: found[kind] for kind in kinds} == kinds


def test_the_classifier_gives_what_onnxruntime_gives(quantized):
    path = quantized("cls")
    ((_, x),) = ocr_models.rendered("cls", 1, 1)
    (y,) = read_network(path).reference({"x": x}).values()
    assert np.abs(y - theirs(path, x)).max() < 2 / 255  # steps of the result


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["cortex-a53", "rvv"])
def test_the_classifier_runs_on_another_cpu(name, quantized, tmp_path):
    """Under an emulator, step by step, with the integers of the oracle."""
    from lpgen.network import build
    from lpgen.network.check import check_network

    target, network = emulator_of(name), read_network(quantized("cls"))
    path = build(network, target, tmp_path / "cls.so")
    results = list(check_network(path, 0, network, cpu=target))
    assert len(results) == len(network.steps)
    assert {result.failure for result in results} == {None}


@pytest.mark.nightly
def test_the_recogniser_reads_what_onnxruntime_reads(quantized, tmp_path):
    from lpgen.network import build
    from lpgen.runtime import load

    path = quantized("rec")
    network = load(build(read_network(path), "native", tmp_path / "rec.so")).network
    letters = ocr_models.characters(onnx.load(path))
    lines = ocr_models.rendered("rec", 1, 40)
    ours, other = (
        [ocr_models.read(scores[0], letters) for scores in found]
        for found in ([network(x) for _, x in lines], [theirs(path, x) for _, x in lines])
    )
    right = [text.replace(" ", "") for text, _ in lines]
    counts = [sum(map(str.__eq__, found, right)) for found in (ours, other)]
    assert counts[0] >= counts[1] - 1
    assert sum(map(str.__eq__, ours, other)) >= len(lines) - 2
