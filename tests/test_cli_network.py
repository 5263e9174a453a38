"""Commands on networks: compile, show, check, bench."""

import contextlib
import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import networks
import numpy as np
import pytest
from processes import started, wait_for

from lpgen import runtime
from lpgen.network import Network
from lpgen.network.check import check_network
from lpgen.network.trials import shares
from lpgen.ops import parse


@pytest.fixture
def model(home, monkeypatch):
    """A file that is read as a network of residual blocks; `model.network` says which."""

    class Model:
        network: Network = networks.residual_blocks(2)
        asked = None

        def read(self, path, shapes, dynamic):
            self.asked = path, shapes
            return self.network

    found = Model()
    monkeypatch.setattr("lpgen.onnx.read_network", found.read, raising=False)
    monkeypatch.setattr(
        "lpgen.cli.compile.quantizing", lambda model, dynamic, plan, ask=False: dynamic
    )
    monkeypatch.setattr("lpgen.cli.compile.exposed", lambda model, plan: None)
    return found


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """residual_blocks(2) as a library."""
    from lpgen.network import build

    path = tmp_path_factory.mktemp("blocks") / "blocks.so"
    return build(networks.residual_blocks(2), "native", path)


def test_compile_makes_a_library_that_runs(lpgen, model, home):
    model.network = networks.two_layers()
    said = lpgen("compile", "m.onnx", "-o", "two.so", "--shape", "image=1x2x6", "--name", "net")
    assert str(model.asked[0]) == "m.onnx"
    assert model.asked[1] == {"image": (1, 2, 6)}
    assert "takes image uint8[1, 2, 6], gives y int32[1, 30]" in said
    assert "2 steps on 2 kernels" in said
    network = runtime.load("two.so").network
    assert network.name == "net"
    x = networks.example(model.network)
    np.testing.assert_array_equal(network(x), model.network.reference(x)["y"])
    assert sorted(path.name for path in home.iterdir() if path.is_file()) == ["two.h", "two.so"]


def test_several_plans_in_a_library(lpgen, model, home):
    model.network = networks.two_layers()
    said = lpgen("compile", "fine.onnx", "--faster", "dir/w4.onnx", "-o", "two.so")
    assert "plans fine, w4; what is said of steps is of the first" in said
    said = lpgen("check", "two.so", "--model", "fine.onnx")
    assert "fine: 2 of 2 steps are as the oracle and their kernels alone" in said
    assert "w4: 2 of 2 steps are as their kernels alone" in said
    rows = [
        json.loads(line) for line in lpgen("bench", "two.so", "--variants", "--json").splitlines()
    ]
    assert [row["plan"] for row in rows] == ["fine", "w4"]
    kept = runtime.load("two.so").variants()
    assert [v.seconds * 1e6 for v in kept] == [row["us"] for row in rows]
    wrong = ("compile", "a.onnx", "-o", "other.so", "--faster")
    said = lpgen(*wrong, "b/a.onnx", status=2)
    assert "b/a.onnx and a.onnx would both be plan a" in said
    said = lpgen(*wrong, "b.onnx", "--weights-beside", status=2)
    assert "--faster goes with neither --ort nor --weights-beside" in said
    assert not (home / "other.so").exists()


def test_compile_for_several_targets(lpgen, model, home):
    model.network = networks.two_layers()
    wanted = ("--targets", "generic,sapphirerapids", "--weights-beside")
    said = lpgen("compile", "m.onnx", "-o", "two.so", *wanted)
    assert "2 steps on 2 kernels for sapphirerapids, generic; " in said
    files = sorted(path.name for path in home.iterdir() if path.is_file())
    assert files == ["two.generic.weights", "two.h", "two.sapphirerapids.weights", "two.so"]
    text = lpgen("check", "two.so", "--model", "m.onnx")
    assert "generic: 2 of 2 steps are as the oracle and their kernels alone" in text
    text = lpgen("show", "two.so")
    assert "in use: " in text
    assert "2 kernels for sapphirerapids, generic" in text


def test_trials_are_shared_by_what_kernels_cost():
    ops = [parse(f"dense m={m} n=4 k=4 act=u8 weight=s8") for m in (1, 2, 3, 4)]
    costs = dict(zip(ops, (1.0, 10.0, 5.0, 4.0), strict=True))
    found = shares(costs, 100)
    assert list(found.items()) == [(ops[1], 49), (ops[2], 24), (ops[3], 19), (ops[0], 8)]
    assert shares(costs, 30) == {ops[1]: 14, ops[2]: 8, ops[3]: 8}  # the cheapest: 1.5 trials
    assert shares(costs, 3) == {ops[1]: 3}
    assert sum(shares(costs, 1000).values()) == 1000


def test_compile_with_trials_tunes_first(lpgen, model, home, monkeypatch):
    asked = {}

    def run(labels, target, log, settings, finished):
        asked.update(settings)

    monkeypatch.setattr("lpgen.cli.tuning.run", run)
    model.network = networks.two_layers()
    said = lpgen("compile", "m.onnx", "-o", "two.so", "--trials", "40", "--threads", "2")
    assert "the steps were expected to take" in said
    assert sum(asked["trials"].values()) == 40
    assert (asked["threads"], asked["farm"]) == (2, None)


def test_compile_tunes_on_devices(lpgen, model, home, monkeypatch):
    asked = {}
    monkeypatch.setattr("lpgen.cli.tuning.run", lambda *given: asked.update(given[3]))
    monkeypatch.setattr("lpgen.farm.Farm", lambda *given: contextlib.nullcontext(given[:3]))
    model.network = networks.two_layers()
    there = ("--rpc", "127.0.0.1:9190", "--key", "rpi4", "--devices", "2")
    command = ("compile", "m.onnx", "-o", "two.so")
    lpgen(*command, "--trials", "16", *there)
    assert asked["farm"] == (("127.0.0.1", 9190), "rpi4", 2)
    for words, reason in (
        (there, "--rpc is for --trials: devices measure, and compile nothing"),
        (("--trials", "8", *there[:2]), "--rpc and --key go together"),
        (("--trials", "8", "--devices", "2"), "--devices is for --rpc"),
    ):
        assert reason in lpgen(*command, *words, status=2)


@pytest.mark.nightly
def test_compile_with_trials_goes_on(lpgen, model, home):
    model.network = networks.two_layers()
    arguments = ("compile", "m.onnx", "-o", "two.so", "--trials", "16", "--log", "log.jsonl")
    said = lpgen(*arguments)
    first = (home / "log.jsonl").read_text()
    assert "tuned" in said.splitlines()[-1]
    assert "8 from the log" in lpgen(*arguments)
    assert (home / "log.jsonl").read_text().startswith(first)


def test_show_lists_steps_and_memory(lpgen, blocks):
    said = lpgen("show", str(blocks))
    assert "arena 3.0 KiB: 1.00 of the 3.0 KiB that are needed at once" in said
    assert "8 steps on 5 kernels for" in said
    assert len([line for line in said.splitlines() if " conv2d " in line]) == 4
    values = [json.loads(line) for line in lpgen("show", str(blocks), "--json").splitlines()]
    assert [value["step"] for value in values[:-1]] == [
        step.name for step in networks.residual_blocks(2).steps
    ]
    assert values[-1]["network"]["arena"]["lower_bound"] == 3072
    assert "workspace" in lpgen("show", str(blocks), "--all")


def test_check_goes_through_all_steps(lpgen, model, blocks):
    said = lpgen("check", str(blocks))
    assert "5 of 5 kernels are exact" in said
    assert "8 of 8 steps are as their kernels alone" in said
    said = lpgen("check", str(blocks), "--model", "m.onnx", "--seed", "3")
    assert "8 of 8 steps are as the oracle and their kernels alone" in said


def test_check_names_the_first_step_that_differs(lpgen, model, blocks):
    """A model with other weights than the library has."""
    steps = list(model.network.steps)
    wrong = steps[2].weights.copy()
    wrong[:, 0] ^= 64
    steps[2] = replace(steps[2], weights=wrong)
    model.network = replace(model.network, steps=tuple(steps))
    said = lpgen("check", str(blocks), "--model", "m.onnx", status=1)
    assert "step b0 (conv2d" in said
    assert "not as the oracle: " in said
    assert said.endswith("the first that differs is step b0\n")


def test_another_model_is_said(lpgen, model, blocks):
    model.network = networks.two_layers()
    said = lpgen("check", str(blocks), "--model", "m.onnx", status=2)
    assert said.splitlines()[-1].startswith("lpgen: step 0 is q: quantize")


def test_a_kernel_that_crashes_is_named(tmp_path, monkeypatch):
    from fake_kernel import fake_kernel

    from lpgen.build import Choice
    from lpgen.network import TensorType, build
    from lpgen.ops import Dense
    from lpgen.target import Target

    op, huge = Dense(5, 7, 34, "u8", "s8"), Dense(5, 200_000, 4000, "u8", "s8")
    kernel = replace(fake_kernel(op), module=fake_kernel(huge).module)
    choice = Choice(op, Target.parse("native"), "fake/crash", {}, kernel)
    step = networks.step(np.random.default_rng(0), "first", op, "y", x="x")
    types = {"x": TensorType((5, 34), "uint8")}, {"y": TensorType((5, 7), "int32")}
    path = tmp_path / "crash.so"
    build(Network(*types, (step,)), "native", path, chooser=lambda _: choice)
    (result,) = check_network(path)
    assert (result.step, result.workload) == ("first", op.name)
    assert "crashed: SIG" in result.failure


def test_bench_times_the_whole_and_its_steps(lpgen, blocks):
    said = lpgen("bench", str(blocks)).splitlines()
    assert [line.split()[0] for line in said[1:-1]] == [
        step.name for step in networks.residual_blocks(2).steps
    ]
    assert said[-1].startswith("blocks on 1 thread: ")
    measured = json.loads(lpgen("bench", str(blocks), "--json", "--threads", "2"))
    assert len(measured["steps"]) == 8
    assert 0.99 < sum(step["share"] for step in measured["steps"]) < 1.01
    assert measured["us_best"] > max(step["us_alone"] for step in measured["steps"])


def test_inputs_are_those_of_a_file_or_a_range(home):
    from lpgen.errors import NetworkError
    from lpgen.network.examples import Between, inputs_of, read_given
    from lpgen.runtime.steps import Tensor

    tensors = [
        Tensor("ids", (3, 50), np.dtype("int64"), "input", 0),
        Tensor("x", (2,), np.dtype("float32"), "input", 1),
    ]
    found = SimpleNamespace(inputs={tensor.name: tensor for tensor in tensors}, steps=())
    np.savez(home / "x.npz", x=np.float32([3, 4]))
    given = read_given([str(home / "x.npz"), "ids=5..9"])
    assert given["ids"] == Between(5, 9)
    inputs = inputs_of(found, np.random.default_rng(0), given)
    assert inputs["x"].tolist() == [3, 4]
    assert np.unique(inputs["ids"]).tolist() == [5, 6, 7, 8, 9]
    for wrong in ({"x": np.zeros(2)}, {"x": np.zeros(3, np.float32)}):
        with pytest.raises(NetworkError, match=r"^input x float32\[2\] is given as float"):
            inputs_of(found, np.random.default_rng(0), wrong)


def test_bench_against_takes_the_model_and_says_who_cannot_run_it(lpgen, blocks, home):
    said = lpgen("bench", str(blocks), "--against", "torch", status=2)
    assert "is a network: --against takes --model MODEL.onnx" in said
    (home / "m.onnx").write_text("no model")
    said = lpgen("bench", str(blocks), "--against", "onnxruntime,torch", "--model", "m.onnx")
    assert "not run: torch: " in said
    assert "not run: onnxruntime: " in said
    assert "1.00" in next(line for line in said.splitlines() if line.startswith("lpgen  "))


def test_others_run_the_same_model(lpgen, home, monkeypatch):
    """One node of ONNX, and the same operator as a network."""
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from lpgen.network import Step, TensorType, build

    made = onnx.helper.make_model(
        onnx.parser.parse_graph(
            """g (float[2, 8] x) => (uint8[2, 8] y)
            <float scale = {0.5}, uint8 zero = {3}> { y = QuantizeLinear(x, scale, zero) }"""
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.save(made, "q.onnx")
    op = parse("quantize axis=16 format=u8 per=tensor")
    constants = {"scale": np.float32([0.5]), "zero": np.uint8([3])}
    step = Step("q", op, {"x": "x"}, "y", constants=constants)
    types = {"x": TensorType((2, 8), "float32")}, {"y": TensorType((2, 8), "uint8")}
    build(Network(*types, (step,)), "native", "q.so")
    said = lpgen("bench", "q.so", "--against", "onnxruntime,openvino", "--model", "q.onnx")
    line = next(line for line in said.splitlines() if line.startswith("onnxruntime"))
    assert line.endswith("equal outputs")


def test_ctrl_c_while_it_compiles_leaves_nothing(home, monkeypatch):
    onnx = pytest.importorskip("onnx")
    from onnx_graphs import random_model

    onnx.save(random_model(np.random.default_rng(1))[0], "m.onnx")
    out, scratch = home / "out", home / "scratch"
    out.mkdir()
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    process = started("-m", "lpgen.cli", "compile", "m.onnx", "-o", "out/m.so")
    wait_for(lambda: any(scratch.glob(".lpgen-scratch-*")))  # its kernels go there
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip()) == (
        130,
        "lpgen: interrupted; out/m.so was not written",
    )
    assert not [*out.iterdir(), *scratch.iterdir()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compile", "m.onnx", "-o", "a.txt"], "output a.txt does not end in .so"),
        (["compile", "m.onnx", "-o", "a.so", "--shape", "x"], "--shape 'x' is not NAME=SIZExSIZE"),
        (["compile", "m.onnx", "-o", "a.so", "--shape", "x=1x-2"], "--shape 'x=1x-2' is not NAME"),
        (["compile", "m.onnx", "-o", "1.so"], "name '1' is no C identifier"),
        (["compile", "m.onnx", "-o", "pool.so"], "name 'pool' is taken inside of the library"),
        (["compile", "m.onnx", "-o", "a.so", "--threads", "0"], "--threads 0 is outside 1..1024"),
        (
            ["bench", "a.so", "--inputs", "x=3"],
            "'x=3' is neither FILE.npz nor NAME=LOW..HIGH, such",
        ),
        (["bench", "a.so", "--inputs", "x=1..-1"], "'x=1..-1' is neither FILE.npz nor NAME=LOW"),
        (["bench", "a.so", "--inputs", "no.npz"], "no.npz: No such file or directory"),
        (["bench", "a.so", "--inputs", "z=0..1"], "the network has no input 'z'; its inputs: x"),
        (["check", "a.so", "--shape", "x=1"], "--shape, --dynamic and --plan are for --model"),
    ],
)
def test_mistakes_are_one_line(lpgen, model, home, blocks, arguments, message):
    if arguments[0] in ("check", "bench"):
        arguments[1] = str(blocks)
    said = lpgen(*arguments, status=2)
    assert said.startswith(f"lpgen: {message}")
    assert said.count("\n") == 1
    assert model.asked is None or arguments[-2] == "--shape"
    assert not [path for path in home.iterdir() if path.is_file()]
