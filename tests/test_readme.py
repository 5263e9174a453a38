"""The Python examples of the README do what it says."""

import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


def test_the_python_examples_run(home):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, build, call = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(build.replace("trials=64", "trials=2"), names)
    op = names["op"]
    x, weights = op.random(np.random.default_rng(0))
    exec(call, names | {"x": x, "weights": weights}, names)
    assert np.array_equal(names["y"], op.reference(x, weights))
    names["y"][...] = 0
    names["run"]()
    assert np.array_equal(names["y"], op.reference(x, weights))


def test_the_example_of_an_epilogue_runs(home):
    from lpgen import build, parse, runtime
    from lpgen.choose import choose

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example, *_ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    op = parse(re.search(r'"(dense .*?)"', example)[1])
    library = runtime.load(build.build([choose(op, "native")], "lib.so"))
    rng = np.random.default_rng(0)
    x, weights = op.random(rng)
    names = {"lpgen": __import__("lpgen"), "kernel": library[op.name], "x": x, "weights": weights}
    parameters = op.random_parameters(rng)
    exec(example, names | parameters, names)
    assert np.array_equal(names["y"], op.reference(x, weights, **parameters))


def test_the_two_commands_come_first():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:25]
    assert "pip install . && lpgen quickstart" in lines
    assert "pip install -e '.[test]' && pytest" in lines


def test_every_command_is_listed():
    from lpgen.cli.app import cli

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"\nlpgen {name} " in text for name in cli.list_commands(None))
