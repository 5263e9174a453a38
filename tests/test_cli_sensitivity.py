"""`lpgen sensitivity` on small models: the table, its picture, and what it refuses."""

import json

import numpy as np
import onnx
import pytest
from plan_models import mlp, small_cnn

FEW = ("--weights", "8,4", "--acts", "8", "--bit-layers", "4", "--noise", "0.1")


@pytest.fixture
def files(home):
    """m.onnx, data.npz, and the same of a CNN."""
    rng = np.random.default_rng(0)
    onnx.save(mlp(), home / "m.onnx")
    onnx.save(small_cnn(), home / "cnn.onnx")
    np.savez(home / "data.npz", x=rng.normal(size=(3, 4, 16)).astype(np.float32))
    np.savez(home / "images.npz", x=rng.normal(size=(2, 1, 3, 8, 8)).astype(np.float32))
    return home


def test_a_table_and_its_picture(lpgen, files):
    flips = ("--flips", "1e-3,0.3")
    arguments = ("m.onnx", "--data", "data.npz", "-o", "t.json", *FEW, *flips)
    said = lpgen("sensitivity", *arguments, "--picture", "t.png")
    assert "w8" in said
    assert "at these rates divergence loses 1%" in said
    table = json.loads((files / "t.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["first", "second", "last"]
    assert len((files / "t.jsonl").read_text().splitlines()) == 3 * 7
    assert (files / "t.png").stat().st_size > 1000
    again = lpgen("sensitivity", *arguments, "--json")
    assert json.loads(again) == table
    assert len((files / "t.jsonl").read_text().splitlines()) == 3 * 7


def test_a_network_of_convolutions(lpgen, files):
    arguments = ("--data", "images.npz", "-o", "t.json", "--metric", "top1", *FEW, "--flips", "")
    assert "a8 static" in lpgen("sensitivity", "cnn.onnx", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.onnx", "--data", "images.npz"], "images.npz: x"),
        (["m.onnx", "--data", "none.npz"], "No such file"),
        (["none.onnx", "--data", "data.npz"], "none.onnx is not there"),
        (["m.onnx", "--data", "data.npz", "--weights", "1"], "--weights 1 is outside 2..8"),
        (["m.onnx", "--data", "data.npz", "--flips", "x"], "--flips 'x' is no list of numbers"),
        (["m.onnx", "--data", "data.npz", "--metric", "x"], "metric 'x' is unknown"),
        (["m.onnx", "--data", "data.npz", "--hadamard", "24"], "hadamard is 24, expected one of"),
    ],
)
def test_mistakes(lpgen, files, arguments, message):
    assert message in lpgen("sensitivity", *arguments, "-o", "t.json", status=2)
    assert not (files / "t.json").exists()
