import ctypes

import numpy as np
import pytest

from lpgen.ops import parse
from lpgen.runtime.memory import aligned_copy
from lpgen.target import Target
from lpgen.tune import timing, workbench
from lpgen.tune.builder import Builder
from lpgen.tune.built import Machine, Weights
from lpgen.tune.timing import compare_laps, time_beside, time_calls, time_in_turns
from lpgen.tune.workbench import Miscomputed, Workbench

OP = parse("dense m=3 n=5 k=7 act=u8 weight=s8")
TARGET = Target.parse("avx2")


class FakeRun:
    """Calls that take `seconds` each on a machine whose slowness changes from run to run."""

    def __init__(self, seconds, slowness=(1.0,)):
        self.seconds, self.slowness, self.runs, self.calls = seconds, slowness, 0, 0

    def __call__(self, count):
        now = self.slowness[min(self.runs, len(self.slowness) - 1)]
        self.runs += 1
        self.calls += count
        return count * self.seconds * now


def test_the_best_sample_counts():
    measured = time_calls(FakeRun(1e-5, slowness=[1.0] * 40 + [1.5, 1.2] + [2.0] * 1000))
    assert measured.seconds == pytest.approx(1e-5)
    quiet = time_calls(FakeRun(1e-5))
    assert quiet.spread == pytest.approx(0)


@pytest.mark.parametrize("seconds", [1e-9, 1e-6, 1e-3, 0.1, 3.0])
def test_effort_is_bounded(seconds):
    run = FakeRun(seconds)
    assert time_calls(run).seconds == pytest.approx(seconds)
    assert run.calls * seconds <= max(3 * timing.BUDGET, 5 * seconds)


def test_a_slow_machine_does_not_make_a_candidate_slow():
    rng = np.random.default_rng(0)
    slowness = list(1 + rng.random(3000))
    candidate, reference = FakeRun(2e-4, slowness), FakeRun(3e-4, slowness)
    measured = time_beside(candidate, reference, reference_seconds=3e-4)
    assert measured.seconds == pytest.approx(2e-4, rel=0.15)


def test_the_least_disturbed_measurement_counts():
    # The reference suffers at first, the candidate never does.
    candidate = FakeRun(2e-4)
    reference = FakeRun(3e-4, slowness=[2.0] * 30 + [1.0])
    measured = time_beside(candidate, reference, reference_seconds=3e-4)
    assert measured.seconds == pytest.approx(2e-4)
    # Where it always suffers, effort ends.
    always = FakeRun(3e-4, slowness=[2.0])
    assert time_beside(candidate, always, 3e-4).seconds == pytest.approx(1e-4)
    assert always.calls * 6e-4 < 4 * timing.ATTEMPTS * timing.BUDGET


def test_a_much_slower_candidate_is_given_up():
    candidate, reference = FakeRun(5e-3), FakeRun(1e-3)
    measured = time_beside(candidate, reference, 1e-3, give_up_above=3e-3)
    assert measured.seconds == pytest.approx(5e-3)
    assert candidate.runs == timing.ATTEMPTS
    assert reference.runs == 0
    # Not one that another one's load made slow while it was warmed up.
    disturbed = FakeRun(1e-3, slowness=[5.0] + [1.0] * 1000)
    measured = time_beside(disturbed, FakeRun(1e-3), 1e-3, give_up_above=3e-3)
    assert measured.seconds == pytest.approx(1e-3)


def test_turns_are_interleaved():
    order = []

    def racer(name):
        def run(count):
            if not order or order[-1] != name:
                order.append(name)
            return count * 1e-3

        return run

    rounds = []
    laps = time_in_turns([racer("a"), racer("b")], 4, on_round=lambda: rounds.append(len(order)))
    assert order == ["a", "b"] * 4
    assert rounds == [0, 2, 4, 6]
    assert [len(times) for times in laps] == [4, 4]


def test_laps_are_compared_within_their_rounds():
    # b is 5 % faster, but raced less often while the machine was quiet.
    slowness = [1.0, 1.4, 1.4, 1.4, 1.0, 1.4]
    a, b = ([seconds * slow for slow in slowness] for seconds in (1e-3, 0.95e-3))
    a[0], b[3] = 3e-3, 2e-3
    first, second = compare_laps([a, b])
    assert second.seconds / first.seconds == pytest.approx(0.95, rel=1e-6)
    (alone,) = compare_laps([[2e-3]])
    assert alone.seconds == pytest.approx(2e-3)


MACHINE = Machine("", frozenset(), TARGET.l2, TARGET.l3, {})


def workbench_of(op=OP, copies=1):
    """A workbench for an operator, and its weights packed as they are, kept so many times."""
    builder = Builder()
    bench = Workbench(builder.problem(op, seed=0), MACHINE)
    examples = builder._known[op, 0].examples.values()
    weights = [example.weights.view(np.uint8).ravel() for example in examples]
    for number in range(copies):
        bench.keep(Weights(str(number), tuple(weights)))
    return bench


def check(bench, function):
    bench.check(function, bench.packed("0"))


def kernel(change=lambda y: None, after=0):
    """A kernel in NumPy: the exact result, changed; `after` bytes are written behind y."""

    def function(x, packed, y):
        x, weights, result = (np.from_dlpack(tensor) for tensor in (x, packed, y))
        w = weights.view(np.int8).reshape(OP.w_shape)
        result[...] = x.astype(np.int32) @ w.astype(np.int32).T
        change(result)
        if after:
            ctypes.memset(result.ctypes.data + result.nbytes, 0, after)

    return function


def test_a_right_kernel_passes_and_runs():
    bench = workbench_of()
    check(bench, kernel())
    assert bench.run(kernel(), bench.packed("0"))(2) > 0


def test_every_wrong_result_is_found():
    bench = workbench_of()

    def off_by_one(y):
        y[-1, -1] += 1

    with pytest.raises(Miscomputed, match="1 of 15 results differ on random input"):
        check(bench, kernel(off_by_one))
    with pytest.raises(Miscomputed, match="15 of 15 results differ on random input"):
        check(bench, lambda x, packed, y: None)
    with pytest.raises(Miscomputed, match="wrote outside of y on random input"):
        check(bench, kernel(after=1))


def test_an_overflow_on_extreme_input_is_found():
    bench = workbench_of()
    limit = int(np.abs(bench.problem.cases[0].y).max())

    def saturate(y):
        np.clip(y, -limit, limit, out=y)

    with pytest.raises(Miscomputed, match="15 of 15 results differ on input max-max"):
        check(bench, kernel(saturate))


def test_extreme_inputs_reach_both_ends():
    bench = workbench_of()
    assert {int(case.y[0, 0]) for case in bench.problem.cases[1:]} == {
        7 * 255 * 127,
        7 * 255 * -128,
    }


def test_misaligned_inputs_are_tried():
    addresses = []

    def function(x, packed, y):
        kernel()(x, packed, y)
        addresses.append([np.from_dlpack(t).ctypes.data % 64 for t in (x, packed, y)])

    check(workbench_of(), function)
    assert addresses == [[0, 0, 0], [1, 0, 4], [1, 0, 4]]


def test_packed_weights_are_kept_within_a_limit(monkeypatch):
    monkeypatch.setattr(workbench, "_KEPT_BYTES", 250)
    bench = workbench_of(copies=2)
    assert (bench.holds("0"), bench.holds("1")) == (True, True)
    bench.packed("0")
    bench.keep(Weights("2", tuple(packed[0] for packed in bench.packed("0"))))
    assert [bench.holds(key) for key in "012"] == [True, False, True]


def test_few_rows_read_their_weights_from_memory():
    gemv = parse("dense m=1 n=1024 k=1024 act=u8 weight=s8")
    copies = workbench_of(gemv).packed("0")[0]
    assert len(copies) * gemv.n * gemv.k > TARGET.l3
    assert all(np.array_equal(copy, copies[0]) for copy in copies)
    assert len(workbench_of().packed("0")[0]) == 1


@pytest.mark.parametrize("offset", [0, 1, 4])
def test_aligned_copy(offset):
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    copy = aligned_copy(array, offset)
    assert copy.ctypes.data % 64 == offset
    assert np.array_equal(copy, array)
