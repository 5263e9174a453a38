"""Networks: what fits together, and what they compute by their oracles."""

from dataclasses import replace

import numpy as np
import pytest

from lpgen.errors import NetworkError
from lpgen.network import Network, Step, TensorType
from lpgen.ops import parse

rng = np.random.default_rng(0)


def two_layers():
    first = parse("dense m=2 n=12 k=6 act=u8 weight=s3 out=u4 scale=tensor")
    second = parse("dense m=6 n=5 k=4 act=u4 weight=s8")
    scale = np.float32([0.05])
    weights = [op.weight.random(rng, op.w_shape) for op in (first, second)]
    steps = (
        Step("first", first, {"x": "image"}, "hidden", weights[0], {"scale": scale}),
        Step("second", second, {"x": "hidden"}, "y", weights[1]),
    )
    return Network(
        {"image": TensorType((1, 2, 6), "uint8")}, {"y": TensorType((1, 30), "int32")}, steps
    )


def test_steps_see_tensors_in_their_own_shapes():
    network = two_layers()
    x = rng.integers(0, 256, (1, 2, 6)).astype(np.uint8)
    first, second = network.steps
    hidden = first.op.reference(x[0], first.weights, **first.parameters)
    y = second.op.reference(hidden.reshape(6, 4), second.weights)
    assert np.array_equal(network.reference({"image": x})["y"], y.reshape(1, 30))
    assert network.tensors["hidden"] == TensorType((2, 12), "uint8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": {"x": "other"}}, "step first: tensor other is read before it is written"),
        ({"inputs": {}}, "step first: input x is missing"),
        ({"inputs": {"x": "image", "z": "image"}}, "step first: dense has no input z"),
        ({"constants": {"x": np.zeros((2, 6), np.uint8)}}, "step first: input x is given twice"),
        ({"output": "image"}, "step first: tensor image is written before"),
        ({"weights": None}, "step first: weights are missing"),
        ({"name": "second"}, "two steps are called second"),
    ],
)
def test_what_does_not_fit_is_said(change, message):
    network = two_layers()
    with pytest.raises(NetworkError) as raised:
        replace(network, steps=(replace(network.steps[0], **change), network.steps[1]))
    assert str(raised.value) == message


def test_sizes_and_dtypes_have_to_agree():
    network = two_layers()
    with pytest.raises(NetworkError, match=r"tensor image is uint8\[7\], x is uint8\[2, 6\]$"):
        replace(network, inputs={"image": TensorType((7,), "uint8")})
    with pytest.raises(NetworkError, match=r"output y: float32\[30\] is not what is computed"):
        replace(network, outputs={"y": TensorType((30,), "float32")})
    with pytest.raises(NetworkError, match=r"^output image is no result of a step$"):
        replace(network, outputs={"image": TensorType((2, 6), "uint8")})
    with pytest.raises(NetworkError, match=r"^input image is uint8\[2\], expected uint8\[1, 2, 6"):
        network.reference({"image": np.zeros(2, np.uint8)})
    with pytest.raises(NetworkError, match=r"^input image is missing$"):
        network.reference({})
