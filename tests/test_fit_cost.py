"""The tool that fits the cost model, and models beside the one that comes with lpgen."""

import json

import numpy as np
import pytest

from lpgen import cost
from lpgen.cli import app
from lpgen.cost.model import VARIABLE, Model
from lpgen.errors import UserError
from lpgen.ops import parse
from lpgen.records import Log, Record
from lpgen.records.choose import choose
from lpgen.schedules.common import blocks
from lpgen.target import Target
from lpgen.templates import Template

OP = parse("conv2d h=28 w=28 ic=128 oc=128 kernel=3 pad=1 act=u8 weight=s8")
DOT = Template("x86", "dot")


@pytest.fixture
def tool(capfd):
    """Runs the tool: what it prints."""

    def run(*arguments, status=0):
        capfd.readouterr()
        assert app.run(["fit-cost", *map(str, arguments)]) == status
        out, err = capfd.readouterr()
        return out + err

    return run


@pytest.fixture
def log(tmp_path):
    """Candidates of zen4 and avx2, in whose times a product of the first costs three times what
    the model thinks."""
    log, rng = Log(tmp_path / "log.jsonl"), np.random.default_rng(1)
    for name, times in (("zen4", 3.0), ("avx2", 1.0)):
        target = Target.parse(name)
        space, prices = DOT.space(OP, target), cost.shipped().shared_prices(DOT, target)
        points = {repr(p): p for p in (space.sample(rng) for _ in range(90))}
        for knobs in points.values():
            counts = DOT.work(OP, target, knobs)
            parts = {n: prices.get(n, 0.0) * c for n, c in counts.items()}
            seconds = (sum(parts.values()) + (times - 1) * parts["products"]) * 1e-9
            log.append(Record(OP.name, name, DOT.name, knobs=knobs, seconds=seconds))
    return log


def test_mistakes_are_one_line(tool, tmp_path, log):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for arguments, told in (
        ((), "Missing argument 'LOG...'"),
        ((tmp_path / "none.jsonl",), f"{tmp_path / 'none.jsonl'}: there is no such file"),
        ((empty, "--on"), "no candidate"),
        ((log.path, "--on", "--own", "zen4"), "one of them"),
        ((log.path, "--own", "zen9"), "target 'zen9' is unknown"),
        ((log.path, "--own", "icelake"), "no candidate of icelake"),
        ((log.path, "--on", "--without", "conv2d"), "no candidate"),
        ((log.path, "--without", f"@{tmp_path / 'none.txt'}"), "none.txt"),
        ((log.path, "-o", tmp_path / "no" / "model.json"), "there is no folder"),
        ((log.path, "--odd"), "No such option"),
    ):
        said = tool(*arguments, status=2)
        assert said.count("\n") == 1, said
        assert told in said
    assert sorted(path.name for path in tmp_path.glob("*.json")) == []


def test_a_cpu_gets_prices_and_trees_of_its_own(tool, tmp_path, log):
    pytest.importorskip("xgboost")
    out, ops = tmp_path / "model.json", tmp_path / "ops.txt"
    tool(log.path, "--own", "zen4", "-o", out)
    shipped, model = cost.shipped(), Model.read(out)
    zen, avx2 = Target.parse("zen4"), Target.parse("avx2")
    own, shared = model.prices_of(DOT, zen), model.shared_prices(DOT, zen)
    assert own["products"] / shared["products"] > 2 * own["stores"] / shared["stores"]
    assert model.prices_of(DOT, avx2) == shipped.prices_of(DOT, avx2)
    assert np.array_equal(model.forest.value, shipped.forest.value)
    # What nobody measured there costs as many times more as the rest does.
    other = Template("x86", "lut_weight")
    times = model.prices_of(other, zen)["loads"] / model.shared_prices(other, zen)["loads"]
    assert 1 < times < 3
    assert model.made["own"]["zen4"]["operators"] == 1
    ops.write_text(f"{OP}\n")
    tool(log.path, "--own", "zen4", "--without", f"@{ops}", "-o", out, status=2)


def test_the_environment_names_another_model(monkeypatch, tmp_path):
    path = tmp_path / "model.json"
    prices = cost.shipped().prices | {"zen4/winograd": {"products": 1e9}}
    path.write_text(json.dumps(Model(prices).to_json()))
    usual = choose(OP, "zen4", lenders=())
    assert usual.template == "x86/winograd"
    monkeypatch.setenv(VARIABLE, str(path))
    assert choose(OP, "zen4", lenders=()).template != usual.template
    for text, told in ((None, "No such file"), ("{}", "is not what"), ("[1]", "is not what")):
        broken = tmp_path / f"{text}.json"
        if text:
            broken.write_text(text)
        monkeypatch.setenv(VARIABLE, str(broken))
        with pytest.raises(UserError, match=told) as raised:
            choose(OP, "zen4", lenders=())
        assert str(broken) in str(raised.value)


def test_rows_that_go_on_in_the_next_line_are_found_one_by_one():
    conv = parse("conv2d h=28 w=28 ic=32 oc=32 kernel=3 pad=1 act=u8 weight=s8")
    assert [blocks.wraps(conv, rows) for rows in (1, 4, 5, 7, 14, 28, 56)] == [0, 0, 5, 0, 0, 0, 0]
    assert blocks.wraps(conv, 5, "folded") == 5
    assert blocks.wraps(conv, 5, "copied") == blocks.wraps(conv, 5, "inside") == 0
    matrix = parse("conv2d h=28 w=28 ic=32 oc=32 kernel=1 act=u8 weight=s8")
    assert blocks.wraps(matrix, 5) == 0
    assert blocks.wraps(parse("dense m=13 n=32 k=32 act=u8 weight=s8"), 8) == 0
