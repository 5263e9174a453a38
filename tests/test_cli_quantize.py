"""lpgen quantize: from a float model and data to a model that lpgen compiles."""

from __future__ import annotations

import json
import signal

import numpy as np
import onnx
import pytest
from float_models import image_model, images, rows, text_model
from processes import started, wait_for

from lpgen.plans import plan_of


@pytest.fixture
def files(home):
    """net.onnx and calib.npz."""
    rng = np.random.default_rng(4)
    onnx.save(image_model(rng), home / "net.onnx")
    np.savez(home / "calib.npz", x=np.stack([call["x"] for call in images(rng, 20)]))
    return home


def test_a_model_becomes_one_that_is_served(lpgen, files):
    said = lpgen("quantize", "net.onnx", "--data", "calib.npz", "--bits", "w4a8", "-o", "q.onnx")
    lines = {line.split()[0]: line for line in said.splitlines()}
    assert "w8a8 static" in lines["first"]
    assert "w4a8 static" in lines["third"]
    imported = lpgen("import", "q.onnx")
    assert "weight=s4" in imported
    assert sorted(p.name for p in files.iterdir() if p.is_file()) == [
        "calib.npz",
        "net.onnx",
        "q.onnx",
    ]


def test_a_plan_says_what_each_layer_becomes(lpgen, files):
    (files / "plan.toml").write_text(
        '[[group]]\nname = "third"\nweight = "s3"\nact = "u7"\nscales = "static"\n'
    )
    said = lpgen(
        *("quantize", "net.onnx", "--data", "calib.npz", "--plan", "plan.toml"),
        *("-o", "q.onnx", "--json", "--equalize", "--method", "rtn", "--ranges", "minmax"),
    )
    found = {row["layer"]: row for row in map(json.loads, said.splitlines())}
    assert found["third"]["precision"] == "w3a7 static"
    assert 0 < found["third"]["lost"] < 0.5
    assert found["first"]["precision"] == "float"
    assert found["first"]["lost"] is None
    assert str(plan_of(onnx.load(files / "q.onnx")).precision("third")) == "w3a7 static"


def test_products_are_compiled_with_the_plan_in_the_file(lpgen, home):
    rng = np.random.default_rng(5)
    onnx.save(text_model(rng), home / "text.onnx")
    calls = {f"x.{i}": call["x"] for i, call in enumerate(rows(rng, 20))}
    np.savez(home / "calib.npz", **calls)
    lpgen(
        *("quantize", "text.onnx", "--data", "calib.npz", "--bits", "w4a7 hadamard=32"),
        *("--smooth", "0.5", "-o", "q.onnx"),
    )
    said = lpgen("import", "q.onnx", "--shape", "x=4x64")
    assert said.count("act=s7 weight=s4") == 3
    assert "hadamard=32" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", "w9a8"], "weight 's9' is unknown"),
        (["--bits", "w4a8", "--plan", "p.toml"], "--plan and --bits both say"),
        (["--plan", "p.toml"], "plan p.toml: No such file"),
        (["--method", "best"], "method 'best' is none of gptq, rtn"),
        (["--ranges", "all"], "ranges 'all' is none of percentile, mse, minmax"),
        (["--damping", "7"], "damping 7.0 is outside 0..1"),
        (["-o", "none/q.onnx"], "none/q.onnx: there is no folder none"),
        (["--data", "other.npz"], "z is none of the inputs x"),
    ],
)
def test_mistakes_end_with_one_line_and_no_file(lpgen, files, arguments, message):
    np.savez(files / "other.npz", z=np.zeros(3))
    given = ["--data", "calib.npz", "-o", "q.onnx", *arguments]
    said = lpgen("quantize", "net.onnx", *given, status=2)
    assert message in said
    assert not list(files.glob("q.onnx*"))


def test_interrupted_says_how_to_go_on(files):
    rng = np.random.default_rng(6)
    many = np.stack([call["x"] for call in images(rng, 4)] * 5000)
    np.savez(files / "many.npz", x=many)
    command = ["quantize", "net.onnx", "--data", "many.npz", "-o", "q.onnx"]
    with started("-m", "lpgen.cli", *command, cwd=files) as process:
        wait_for((files / "q.onnx.part").exists)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert not (files / "q.onnx").exists()
