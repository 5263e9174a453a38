"""Networks for images with few bits, in both forms that tools write."""

import numpy as np
import pytest

pytest.importorskip("onnx")

import vision_models
from onnx_graphs import network_of


@pytest.mark.parametrize(("weight", "act"), [(4, 4), pytest.param(2, 2, marks=pytest.mark.nightly)])
def test_types_of_few_bits_and_quant_nodes_become_the_same_operators(weight, act, tmp_path):
    """All of ResNet-18 between codes: 20 convolutions, of which 19 have few bits."""
    x = {"x": vision_models.smooth(0, 1, 32)[0]}
    networks = [
        network_of(vision_models.few_bits("resnet18", weight, act, qonnx, 32), tmp_path)
        for qonnx in (False, True)
    ]
    ops = [[step.op for step in network.steps] for network in networks]
    assert ops[0] == ops[1]
    convolutions = [op for op in ops[0] if op.kind == "conv2d"]
    forms = [(str(op.act), str(op.weight)) for op in convolutions]
    assert forms == [("u8", "s8"), *[(f"u{act}", f"s{weight}")] * 19]
    assert sum(op.signature.output.dtype == "float32" for op in convolutions) == 3  # shortcuts
    ours, theirs = (network.reference(x)["scores"] for network in networks)
    assert np.array_equal(ours, theirs)
