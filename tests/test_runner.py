"""A builder and a runner that meet in values only, as over a network."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest

from lpgen.ops import parse
from lpgen.target import Target
from lpgen.templates import get
from lpgen.tune.builder import Builder
from lpgen.tune.messages import Candidate
from lpgen.tune.runner import Runner, this_machine
from lpgen.tune.workbench import Miscomputed

OP = parse("dense m=4 n=32 k=64 act=u8 weight=s8 bias=s32 scale=channel out=s8")
NATIVE = Target.parse("native")


def over(value):
    """The value as it comes out of a pipe."""
    return pickle.loads(pickle.dumps(value))


@pytest.fixture
def runner(tmp_path):
    with open(tmp_path / "turn", "wb") as turn:
        yield Runner(turn.fileno())


def built(builder, op=OP, algorithm="generic/generic", threads=1):
    template = get(algorithm)
    candidate = Candidate(template, template.default(op, NATIVE))
    return over(builder.build(op, NATIVE, candidate, 0, threads))


def test_only_values_pass(runner):
    builder = Builder()
    first, second = built(builder), built(builder)
    asked = []

    def weights(key):
        asked.append(key)
        return over(builder.weights(key))

    runner.open(over(builder.problem(OP, 0)))
    loaded = [runner.load(each, weights) for each in (first, second)]
    assert asked == [first.weights]  # once a layout
    with runner.turn():
        runner.check(loaded[0])
        alone = runner.time(loaded[0])
        beside = runner.time(loaded[1], loaded[0], alone.seconds)
        laps = runner.race(loaded, on_round=lambda: None)
    assert 0 < alone.seconds < 1
    assert beside.seconds == pytest.approx(alone.seconds, rel=0.9)
    assert [len(times) for times in laps] == [len(laps[0])] * 2
    assert over(this_machine()) == runner.machine


def test_the_runner_holds_a_kernel_to_the_results_it_is_given(runner):
    builder = Builder()
    problem = builder.problem(OP, 0)
    first = problem.cases[0]
    y = first.y.copy()
    y[0, 0] ^= 1
    cases = (first._replace(y=y), *problem.cases[1:])
    runner.open(replace(problem, cases=cases))
    with pytest.raises(Miscomputed, match="1 of 128 results differ on random input"):
        runner.check(runner.load(built(builder), builder.weights))


def test_a_new_problem_replaces_the_old_one(runner):
    builder, other = Builder(), parse("dense m=2 n=8 k=16 act=u4 weight=s4")
    for op in (OP, other, OP):
        runner.open(builder.problem(op, 0))
        runner.check(runner.load(built(builder, op), builder.weights))


SERVE = """
import pickle, sys
import tvm  # its runtime gives kernels their workspace and threads
from lpgen.tune.runner import Runner
with open(sys.argv[1], "rb") as file:
    problem, candidate, weights = pickle.load(file)
runner = Runner(0)
runner.open(problem)
loaded = runner.load(candidate, lambda key: weights)
runner.check(loaded)
print(runner.time(loaded).seconds > 0)
"""


def test_values_are_all_that_another_process_needs(tmp_path):
    builder = Builder()
    candidate = built(builder)
    values = builder.problem(OP, 0), candidate, builder.weights(candidate.weights)
    (tmp_path / "values").write_bytes(pickle.dumps(values))
    command = [sys.executable, "-c", SERVE, str(tmp_path / "values")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_machine_code_is_that_of_the_builder(runner):
    """What is damaged on its way is refused, not run."""
    builder = Builder()
    runner.open(builder.problem(OP, 0))
    whole = built(builder)
    with pytest.raises(Exception, match="cannot be loaded"):
        runner.load(replace(whole, code=whole.code[:100]), builder.weights)
