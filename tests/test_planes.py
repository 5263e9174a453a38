"""Bit planes between the layers of a network."""

from types import SimpleNamespace

import networks
import numpy as np
import pytest

from lpgen import runtime
from lpgen.network import Network, TensorType, build
from lpgen.network.check import check_network
from lpgen.network.planes import planes_as_in, with_planes

LAYER = "conv2d h=5 w=6 ic=40 oc=40 kernel=3 pad=1 act=u1 weight=b1 out=u1 scale=channel"


def layers(*texts: str, outputs: tuple[str, ...] = ()) -> Network:
    """One behind the other, t0 -> t1 -> ...; a residual is the input of the layer before."""
    rng, steps = np.random.default_rng(0), []
    for i, text in enumerate(texts):
        more = {"residual": f"t{i - 1}"} if "residual" in text else {}
        steps.append(networks.step(rng, f"layer{i}", text, f"t{i + 1}", x=f"t{i}", **more))
    made = {step.output: step.op.signature.output for step in steps}
    kept = (*outputs, steps[-1].output)
    x = steps[0].op.signature.inputs[0]
    return Network(
        {"t0": TensorType(x.shape, x.dtype)},
        {name: TensorType(made[name].shape, made[name].dtype) for name in kept},
        tuple(steps),
    )


def chooser(algorithm: str):
    return lambda op: SimpleNamespace(template=f"x86/{algorithm}")


def planes_of(network: Network) -> list[tuple[bool, bool]]:
    """For each step whether it reads planes, and whether it writes them."""
    return [(step.op.input == "planes", step.op.pack is not None) for step in network.steps]


def test_between_layers_that_count_bits():
    found = with_planes(layers(*[LAYER] * 3), [chooser("bitserial")])
    assert planes_of(found) == [(False, True), (True, True), (True, False)]
    assert found.tensors["t1"] == TensorType((1, 5, 6, 2 * 4), "uint8")


@pytest.mark.parametrize(
    "network",
    [
        layers(LAYER, LAYER, outputs=("t1",)),
        layers(LAYER, LAYER, f"{LAYER} residual=u1"),
        layers(LAYER, "dense m=30 n=7 k=40 act=u1 weight=b1"),
        layers(LAYER, "pool h=5 w=6 c=40 how=max kernel=2 act=u1"),
        layers(LAYER.replace("out=u1", "out=u2"), LAYER),
    ],
    ids=["an output", "a residual", "another shape", "no product", "another format"],
)
def test_not_where_something_else_reads_them(network):
    found = with_planes(network, [chooser("bitserial")])
    assert found.steps[0].op == network.steps[0].op
    assert "input=planes" not in found.steps[1].op.name


def test_not_where_one_of_the_targets_does_not_count_bits():
    network = layers(LAYER, LAYER)
    assert with_planes(network, [chooser("bitserial"), chooser("dot")]) == network


def test_a_library_with_them_gives_what_the_network_does(tmp_path):
    network = layers(*[LAYER] * 3)
    path = build(network, "native", tmp_path / "planes.so")
    built = runtime.load(path).network
    x = {"t0": np.random.default_rng(1).integers(0, 2, (1, 5, 6, 40)).astype(np.uint8)}
    assert np.array_equal(built(x), network.reference(x)["t3"])
    same = planes_as_in(network, [step.workload for step in built.steps])
    assert [step.op.name for step in same.steps] == [step.workload for step in built.steps]
    assert not [step for step in check_network(path, network=network) if step.failure]
