"""Sensitivity: fewer bits, flipped bits and noise, one group of layers at a time."""

import json

import numpy as np
import pytest
from plan_models import mlp, small_cnn

from lpgen.errors import PlanError, UserError
from lpgen.formats import Format
from lpgen.plans import Precision, groups_of
from lpgen.quantize.calibration import Calibration
from lpgen.quantize.codes import Codes
from lpgen.quantize.session import Session
from lpgen.sensitivity import (
    Amounts,
    Journal,
    Result,
    Row,
    Table,
    metric_of,
    parts_of,
    read_table,
    sensitivity,
)
from lpgen.sensitivity.faked import Act, faked
from lpgen.sensitivity.metrics import divergence
from lpgen.sensitivity.rest import Front
from lpgen.sensitivity.variants import flipped

AMOUNTS = Amounts((2, 4, 8), (2, 4, 8), (3, 8), (1e-3, 1e-1), (0.05,), hadamard=16)


def calls_for(shape: tuple[int, ...], count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(count)]


@pytest.fixture(scope="module")
def mlp_table():
    calibration = Calibration(mlp(), calls_for((8, 16)))
    return sensitivity(calibration, AMOUNTS.of, metric_of("top1"), Journal(None, ""), name="mlp")


def test_fewer_bits_cost_more(mlp_table):
    for row in mlp_table.rows:
        found = [row.results[name].divergence for name in ("w8", "w4", "w2")]
        assert found == sorted(found)
        assert 0 < found[0] < 1e-3 < found[2]
        acts = [row.results[name].divergence for name in ("a8 row", "a3 row")]
        assert 0 < acts[0] < 1e-3 < acts[1]
        layers = [row.results[f"layers={n}"].divergence for n in (8, 4, 2)]
        assert layers == sorted(layers)
        assert row.results["flips=0.1"].divergence > row.results["flips=0.001"].divergence
        assert row.results["noise=0.05"].divergence > 0
    assert mlp_table.reference == 1


def test_hadamard_is_tried_where_blocks_divide(mlp_table):
    assert "w4 hadamard=16" in mlp_table.row("first").results  # k = 16
    assert "w4 hadamard=16" not in mlp_table.row("second").results  # k = 24
    first = mlp_table.row("first")
    assert first.results["w8 hadamard=16"].divergence < 1e-3
    assert first.results["a8 row hadamard=16"].divergence < 1e-3


def test_the_loss_of_a_precision_is_the_sum_of_its_parts(mlp_table):
    row = mlp_table.row("first")
    assert [str(part) for part in parts_of(Precision.parse("w4a3"))] == ["w4", "a3 row"]
    parts = row.results["w4"].divergence + row.results["a3 row"].divergence
    assert row.loss(Precision.parse("w4a3")) == parts
    assert row.loss(Precision.parse("float")) == 0
    assert row.loss(Precision.parse("w8a8 bit_layers=4")) > 0
    with pytest.raises(PlanError, match="first: w5 was not measured; did you mean w"):
        row.loss(Precision.parse("w5a8"))


def test_a_table_is_read_as_it_was_written(mlp_table, tmp_path):
    mlp_table.write(tmp_path / "table.json")
    assert read_table(tmp_path / "table.json") == mlp_table
    (tmp_path / "table.json").write_text(json.dumps({"rows": 3}))
    with pytest.raises(PlanError, match="is no table of lpgen sensitivity"):
        read_table(tmp_path / "table.json")


def test_an_interrupted_run_goes_on(tmp_path):
    path = tmp_path / "journal.jsonl"
    calls = calls_for((3, 3, 8, 8), 2)
    amounts = Amounts((4,), (), (8,), (), ())

    class Stop(Exception):
        pass

    def stop(what: str, done: int, of: int) -> None:
        if done == 3:
            raise Stop

    def run(progress) -> tuple:
        calibration = Calibration(small_cnn(), calls)
        journal = Journal(path, "this")
        metric = metric_of("divergence")
        return sensitivity(calibration, amounts.of, metric, journal, progress), journal

    with pytest.raises(Stop):
        run(stop)
    path.write_text(path.read_text() + '{"of": "this", "key": "cut o')
    seen = []
    table, _ = run(lambda what, done, of: seen.append((done, of)))
    assert seen == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert [row.name for row in table.rows] == ["conv", "depthwise", "classes"]
    assert list(table.row("conv").results) == ["w4", "a8 static"]
    assert len(path.read_text().splitlines()) == 7  # 6 results, and what was cut off
    assert Journal(path, "another").known == {}


def test_the_rest_of_a_model_gives_what_the_whole_gives():
    calls = calls_for((8, 16), 3)
    whole, front = Session(mlp()), Front(mlp(), calls)
    for node in ("first", "second", "last", "second"):  # also back again
        rest = Session(front.at(node))
        found = [rest(call)["y"] for call in front.calls]
        expected = [whole(call)["y"] for call in calls]
        assert np.allclose(found, expected, atol=1e-5)
        assert list(front.calls[0]) == {"first": ["x"], "second": ["h3"], "last": ["h5"]}[node]


def test_outputs_are_compared_on_other_calls_than_those_that_calibrate():
    calls, amounts = calls_for((8, 16), 6), Amounts((4,), (), (), (), ())

    def run(other: list) -> Table:
        calibration, journal = Calibration(mlp(), calls[:2]), Journal(None, "")
        return sensitivity(calibration, amounts.of, metric_of("top1"), journal, calls=other)

    same, other = run(calls[:2]), run(calls[2:])
    assert (same.calls, other.calls) == (2, 4)
    seen = [table.row("second").results["w4"].divergence for table in (same, other)]
    assert seen[0] < seen[1]  # GPTQ knows the first


def test_activations_are_seen_as_kernels_quantize_them():
    from lpgen.ops import Dense
    from lpgen.ops.epilogue import Scale

    model, x = mlp(), calls_for((8, 16), 1)[0]["x"]
    group = groups_of(model)[0]
    act = Act(Precision.parse("w8a4 row"))
    seen = Session(faked(model, dict.fromkeys(group.nodes, act)), ["h0"])({"x": x})["h0"]
    rng = np.random.default_rng(0)
    op = Dense(8, 24, 16, "s4", "s8", input="f32:row", epilogue=(Scale("tensor"),))
    codes = op.weight.random(rng, op.w_shape)
    model.graph.initializer[0].CopyFrom(_tensor("w0", codes.T.astype(np.float32)))
    seen = Session(faked(model, dict.fromkeys(group.nodes, act)), ["h0"])({"x": x})["h0"]
    expected = op.reference(x=x, w=codes, scale=np.float32([1]))
    assert np.allclose(seen, expected, rtol=1e-4, atol=1e-3)


def _tensor(name: str, array: np.ndarray):
    from onnx import numpy_helper

    return numpy_helper.from_array(array, name)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_bits_are_flipped_at_the_rate(bits):
    form = Format("s", bits)
    rng = np.random.default_rng(0)
    codes = Codes(form.random(rng, (200, 300)), np.ones((200, 1), np.float32), form)
    assert np.array_equal(flipped(codes, 0, rng).codes, codes.codes)
    found = flipped(codes, 0.01, rng).codes
    assert found.min() >= form.min
    assert found.max() <= form.max
    changed = (codes.codes.astype(int) - form.min) ^ (found.astype(int) - form.min)
    flips = sum(int((changed >> bit & 1).sum()) for bit in range(bits))
    assert flips == pytest.approx(0.01 * bits * codes.codes.size, rel=0.2)


def test_a_tolerated_rate_lies_between_those_tried():
    def row(*metrics: float) -> Row:
        pairs = zip((1e-4, 1e-3, 1e-2), metrics, strict=True)
        return Row("a", ("a",), 1, {f"flips={rate:g}": Result(0, m) for rate, m in pairs})

    assert row(1, 1, 1).tolerated(1) == 1e-2
    assert row(0.5, 0.5, 0.5).tolerated(1) is None
    assert row(1, 0.99, 0.5).tolerated(1) == pytest.approx(1e-3)
    assert row(1, 0.995, 0.985).tolerated(1) == pytest.approx(10**-2.5)
    assert row(1, float("nan"), 0.5).tolerated(1) == 1e-4
    assert Row("a", ("a",), 1, {}).tolerated(1) is None


def test_divergence_of_probabilities_is_that_of_kullback_and_leibler():
    p, q = np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([[0.5, 0.5], [0.75, 0.25]])
    expected = (0.25 * np.log(1 / 3) + 0.75 * np.log(3)) / 2
    assert divergence([{"y": q}], [{"y": p}]) == pytest.approx(expected)
    y = np.float32([1, -2, 2])
    assert divergence([{"y": y + 1}], [{"y": y}]) == pytest.approx(1 / 3)
    assert divergence([{"y": y * np.nan}], [{"y": y}]) == np.inf


def test_metrics(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    y = [{"y": rng.normal(size=(4, 6))} for _ in range(3)]
    for name in ("divergence", "spearman", "top1"):
        assert metric_of(name)(y, y, []) == pytest.approx(1)
    worse = [{"y": a["y"] + rng.normal(size=(4, 6))} for a in y]
    for name in ("divergence", "spearman", "top1"):
        assert metric_of(name)(worse, y, []) < 0.95
    (tmp_path / "own.py").write_text("def right(outputs, calls):\n    return len(outputs) / 4\n")
    monkeypatch.chdir(tmp_path)
    assert metric_of("own:right")(y, y, []) == 0.75


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "metric 'nothing' is unknown; known: divergence, spearman, top1, module:f"),
        ("no_module:f", "No module named 'no_module'"),
        ("json:nothing", "json has no function nothing"),
    ],
)
def test_no_metric(text, message):
    with pytest.raises(UserError, match=message):
        metric_of(text)


def test_a_metric_that_fails_is_one_line():
    with pytest.raises(UserError, match="metric json:loads: "):
        metric_of("json:loads")([{}], [{}], [])


def test_layers_of_codes_and_planes_of_signs_are_two_variants():
    for words, text in (("w8a8", "layers=4 weight_group=8"), ("w1a8", "planes=4 weight_group=8")):
        weights, _ = parts_of(Precision.parse(f"{words} row bit_layers=4 weight_group=8"))
        assert str(weights) == text
