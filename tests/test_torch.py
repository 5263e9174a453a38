"""PyTorch modules on kernels: the same numbers as their codes say, exported, compiled and saved."""

import copy

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

import lpgen.torch  # noqa: E402 - behind the skip
from lpgen.errors import PlanError, UserError  # noqa: E402
from lpgen.plans import Group, Plan, Precision  # noqa: E402
from lpgen.torch import layers  # noqa: E402
from lpgen.torch.layers import Conv, Linear  # noqa: E402

ROWS, IMAGES = 4, 2


class Net(nn.Module):
    """A layer of each kind that is converted, and a norm that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.line = nn.Conv1d(8, 6, 3, padding="same")
        self.norm = nn.LayerNorm(6)
        self.gru = nn.GRU(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.last = nn.Linear(10, 7)

    def forward(self, x):
        y = self.depthwise(self.conv(x).relu()).flatten(2)
        y = self.norm(self.line(y).transpose(1, 2))
        return self.last(self.gru(y)[0])


@pytest.fixture(scope="module", autouse=True)
def few_bodies(tmp_path_factory):
    """Kernels for few rows at once, which are built quickly, and a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(layers, "ROWS", ROWS)
        patch.setattr(layers, "IMAGES", IMAGES)
        yield


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 9, 11, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def small(net, images):
    return lpgen.torch.quantize(net, "w8a8", calibration=[images])


def error(found, wanted):
    return float((found - wanted).detach().norm() / wanted.detach().norm())


def test_eight_bits_are_near_float_and_every_layer_is_converted(net, small, images):
    with torch.inference_mode():
        assert error(small(images), net(images)) < 0.05
    assert {layer.name: layer.precision for layer in lpgen.torch.report(small)} == {
        "conv": "w8a8 static",
        "depthwise": "w8a8 static",
        "line": "w8a8 static",
        "gru": "w8a8 row",
        "last": "w8a8 row",
        "norm": "float",
    }
    assert isinstance(net.last, nn.Linear)  # the model itself is as it was


def test_a_linear_layer_is_what_its_codes_say():
    torch.manual_seed(0)
    linear = nn.Linear(20, 9)
    made = lpgen.torch.quantize(linear, "w3a8")
    x = torch.randn(2, 3, 20)
    step = x.abs().amax(-1, keepdim=True) / 127
    codes = (x / step).round().clamp(-127, 127)
    wanted = (codes @ made.codes.float().T) * made.scale * step + linear.bias
    torch.testing.assert_close(made(x), wanted)
    assert int(made.codes.abs().max()) <= 4
    rows = torch.randn(2 * ROWS + 1, 20)
    parts = torch.cat([made(part) for part in rows.split(ROWS)])
    assert torch.equal(made(rows), parts)
    assert made(rows[:0]).shape == (0, 9)


def test_gptq_loses_less_than_rounding():
    torch.manual_seed(0)
    linear = nn.Linear(20, 9)
    data = torch.randn(200, 3) @ torch.randn(3, 20) + 0.1 * torch.randn(200, 20)
    errors = [
        error(lpgen.torch.quantize(linear, "w3a8", calibration=given)(data), linear(data))
        for given in (None, [data])
    ]
    assert errors[1] < 0.8 * errors[0]


def test_lstm_is_that_of_torch():
    torch.manual_seed(0)
    lstm = nn.LSTM(12, 10, num_layers=2)
    made = lpgen.torch.quantize(lstm, "w8a8")
    x, state = torch.randn(5, 3, 12), (torch.randn(2, 3, 10), torch.randn(2, 3, 10))
    for found, wanted in zip(_flat(made(x, state)), _flat(lstm(x, state)), strict=True):
        assert error(found, wanted) < 0.03
    alone = made(x[:, 0])
    torch.testing.assert_close(alone[0], made(x[:, :1])[0][:, 0])


def _flat(result):
    y, (h, c) = result
    return y, h, c


def test_state_goes_to_a_model_of_the_same_layers(net, small, images, tmp_path):
    other = copy.deepcopy(net)
    nn.init.normal_(other.last.weight)
    blank = lpgen.torch.quantize(other, "w8a8", calibration=[images * 2])
    torch.save(small.state_dict(), tmp_path / "state.pt")
    blank.load_state_dict(torch.load(tmp_path / "state.pt"))
    with torch.inference_mode():
        assert torch.equal(blank(images), small(images))
    torch.save(small, tmp_path / "whole.pt")
    whole = torch.load(tmp_path / "whole.pt", weights_only=False)
    with torch.inference_mode():
        assert torch.equal(whole(images), small(images))


def test_export_keeps_kernels_as_nodes(small, images, tmp_path):
    program = torch.export.export(small, (images,))
    torch.export.save(program, tmp_path / "net.pt2")
    with torch.inference_mode():
        assert torch.equal(torch.export.load(tmp_path / "net.pt2").module()(images), small(images))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"lpgen.dense.default", "lpgen.conv2d.default"} <= called


def test_compile_takes_any_number_of_rows(small):
    compiled = torch.compile(small.last, backend="eager", fullgraph=True, dynamic=True)
    with torch.inference_mode():
        for rows in (3, 5):
            x = torch.randn(rows, 10)
            assert torch.equal(compiled(x), small.last(x))


def test_threads_are_those_of_torch(small, images):
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                results.append(small(images))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_channels_last_and_other_types(small, images):
    with torch.inference_mode():
        last = small.conv(images.contiguous(memory_format=torch.channels_last))
        assert torch.equal(last, small.conv(images))
        assert small.conv(images.double()).dtype == torch.float64


def test_a_plan_names_modules(net, images):
    plan = Plan((Group("a", ("last",), Precision.parse("w4a8 row")),))
    made = lpgen.torch.quantize(net, plan)
    assert isinstance(made.last, Linear)
    assert isinstance(made.conv, nn.Conv2d)
    with pytest.raises(PlanError, match=r"no layer lost to quantize; did you mean last\?"):
        lpgen.torch.quantize(net, Plan((Group("a", ("lost",), Precision.parse("w4a8")),)))


def test_what_stays_float_is_said(net, images):
    odd = nn.Sequential(nn.Conv2d(3, 4, 2, padding="same"), nn.LSTM(4, 4, proj_size=2))
    with pytest.warns(lpgen.torch.FloatLayersWarning, match="come from calibration data"):
        made = lpgen.torch.quantize(odd, "w8a8")
    assert [layer.reason != "" for layer in lpgen.torch.report(made)] == [True, True]


def test_bad_data_and_bad_calls(net, small, images):
    with pytest.raises(UserError, match="batch 0 holds NaN"):
        lpgen.torch.quantize(net, "w8a8", calibration=[images * float("nan")])
    with pytest.raises(UserError, match="does not take calibration batch 1"):
        lpgen.torch.quantize(net, "w8a8", calibration=[images, images[:, :2]])
    with pytest.raises(UserError, match="made for images of 9x11, not 8x8"):
        small.conv(torch.randn(1, 3, 8, 8))
    with pytest.raises(UserError, match="no gradient"):
        small.last(torch.randn(2, 10, requires_grad=True))
    with pytest.raises(UserError, match="no quantized layers"):
        lpgen.torch.save(net, "x.so")


def test_kernels_built_ahead(net, small, images, tmp_path):
    from lpgen.torch import kernels

    lpgen.torch.save(small, tmp_path / "kernels.so")
    lpgen.torch.load(tmp_path / "kernels.so")
    assert all(name in kernels._kernels for name in small.last.workloads)


def test_zero_points_and_images_without_values():
    conv = nn.Conv2d(2, 3, 3)
    x = torch.rand(1, 2, 6, 6) + 3
    made = lpgen.torch.quantize(conv, "w8a8", calibration=[x])
    assert isinstance(made, Conv)
    assert error(made(x), conv(x)) < 0.03
    blank = lpgen.torch.quantize(conv, "w8a8", calibration=[torch.zeros(1, 2, 6, 6)])
    torch.testing.assert_close(blank(torch.zeros(1, 2, 6, 6)), conv(torch.zeros(1, 2, 6, 6)))


def test_a_block_is_one_call(tmp_path):
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(4, 6)
    made = lpgen.torch.compile(block, [x], tmp_path / "block.so", "w8a8 static")
    with torch.inference_mode():
        assert error(made(x), block(x)) < 0.03
    program = torch.export.export(made, (x,))
    assert torch.equal(program.module()(x), made(x))


def test_sequences_that_are_packed_are_refused():
    made = lpgen.torch.quantize(nn.GRU(6, 5), "w8a8")
    packed = nn.utils.rnn.pack_sequence([torch.randn(3, 6), torch.randn(2, 6)])
    with pytest.raises(UserError, match="GRU takes tensors, not PackedSequence"):
        made(packed)
