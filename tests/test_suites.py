from pathlib import Path

import pytest

from lpgen.errors import WorkloadError
from lpgen.ops import parse, read_workloads
from lpgen.ops.suites import layers, suite, suites


def test_the_named_suites():
    assert suites() == ("resnet18", "mobilenet_v2", "bert_base", "llama_7b")


@pytest.mark.parametrize("name", suites())
def test_layers_are_distinct_operators_with_distinct_labels(name):
    found = layers(name, "u4", "s3")
    ops = suite(name, "u4", "s3")
    assert [op for _, op in found] == ops
    assert len(set(ops)) == len(ops) == len({label for label, _ in found})
    for op in ops:
        assert parse(str(op)) == op
        assert (str(op.act), str(op.weight)) == ("u4", "s3")


def test_resnet18_is_that_of_the_paper():
    found = dict(layers("resnet18", "u8", "s8"))
    assert [op.kind for op in found.values()] == ["conv2d"] * 11 + ["dense"]
    assert str(found["layer1.conv 3x3 64@56"]) == (
        "conv2d n=1 h=56 w=56 ic=64 oc=64 kernel=3x3 stride=1 pad=1 dilation=1 groups=1 "
        "act=u8 weight=s8 out=s32"
    )
    assert found["conv1 7x7 3->64@224 s2"].y_shape == (1, 112, 112, 64)
    # How often each layer runs in the network; with these it needs the paper's 1.8e9 operations.
    runs = dict.fromkeys(found, 1)
    runs["layer1.conv 3x3 64@56"] = 4
    for label in ("layer2.conv 3x3 128@28", "layer3.conv 3x3 256@14", "layer4.conv 3x3 512@7"):
        runs[label] = 3
    assert sum(times * found[label].macs for label, times in runs.items()) == 1_814_073_344


def test_mobilenet_v2_is_that_of_the_paper():
    found = dict(layers("mobilenet_v2", "u8", "s8"))
    ops = list(found.values())
    assert ops[-1].x_shape == (1, 1280)
    assert [op.oc for op in ops[-2:-1]] == [1280]
    depthwise = [op for op in ops[:-1] if op.depthwise]
    assert len(depthwise) == 10
    assert all(op.kernel == (3, 3) and op.oc == op.ic for op in depthwise)
    assert {op.groups for op in ops[:-1] if not op.depthwise} == {1}
    # Every layer reads what another one writes (or the image), so the sizes fit together.
    written = {op.y_shape for op in ops[:-1]} | {(1, 224, 224, 3)}
    assert all(op.x_shape in written for op in ops[:-1])


def test_transformer_shapes():
    shapes = {name: [(op.m, op.n, op.k) for op in suite(name, "u8", "s4")] for name in suites()[2:]}
    assert shapes["bert_base"] == [(128, 768, 768), (128, 3072, 768), (128, 768, 3072)]
    assert shapes["llama_7b"] == [
        *((1, 4096, 4096), (1, 11008, 4096)),
        *((1, 4096, 11008), (1, 32000, 4096)),
    ]


def test_unknown_suite_lists_the_near_ones():
    with pytest.raises(
        WorkloadError, match=r"suite 'resnet8' is unknown; did you mean resnet18\? known: resnet18,"
    ):
        suite("resnet8", "u8", "s8")
    with pytest.raises(WorkloadError, match="suite 'zzz' is unknown; known: resnet18"):
        layers("zzz", "u8", "s8")


def test_the_mixed_workloads():
    ops = read_workloads([f"@{Path(__file__).parent / 'mixed_workloads.txt'}"])
    assert len(set(ops)) == 20
    assert {op.kind for op in ops} == {"dense", "conv2d"}
    assert {op.weight.bits for op in ops} == {1, 2, 3, 4, 6, 8}
    assert {op.act.bits for op in ops} == {1, 2, 3, 4, 5, 8}
