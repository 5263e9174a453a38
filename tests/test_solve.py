"""The integer program of plans, beside all choices there are."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpgen.plans.solve import Problem, Solution, fastest, finest, front, knee, smallest, undominated


@st.composite
def problems(draw) -> Problem:
    """A few groups of a few options, and edges between some of them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    scale = draw(st.sampled_from([1e-6, 1e-3, 1.0]))
    pairs = itertools.combinations(range(len(sizes)), 2)
    edges = [pair for pair in pairs if draw(st.booleans())]
    few = np.array([0.0, 1.0, 5.0])
    return Problem(
        [rng.integers(1, 20, size) * scale for size in sizes],
        [rng.integers(0, 20, size) * scale for size in sizes],
        [rng.integers(1, 9, size).astype(float) for size in sizes],
        {(a, b): scale * rng.choice(few, (sizes[a], sizes[b])) for a, b in edges},
    )


def every(problem: Problem) -> list[Solution]:
    places = itertools.product(*(range(len(values)) for values in problem.seconds))
    return [problem.solution(choice) for choice in places]


def at_most(value: float, limit: float) -> bool:
    return value <= limit * (1 + 1e-6)


@settings(max_examples=60)
@given(problems(), st.floats(0, 1.2), st.floats(0.3, 1.2))
def test_the_best_of_all_choices_is_found(problem, loss_part, bytes_part):
    choices = every(problem)
    budgets = {
        "loss": loss_part * max(s.loss for s in choices),
        "seconds": loss_part * max(s.seconds for s in choices),
        "nbytes": bytes_part * max(s.nbytes for s in choices),
    }
    few = [s for s in choices if at_most(s.nbytes, budgets["nbytes"])]
    for objective, within, found in (
        ("seconds", "loss", fastest(problem, budgets["loss"], budgets["nbytes"])),
        ("loss", "seconds", finest(problem, budgets["seconds"], budgets["nbytes"])),
    ):
        allowed = [s for s in few if at_most(getattr(s, within), budgets[within])]
        assert (found is None) == (not allowed)
        if found:
            best = min(getattr(s, objective) for s in allowed)
            assert getattr(found, objective) == pytest.approx(best, rel=1e-3)
            assert at_most(getattr(found, within), budgets[within])
            assert at_most(found.nbytes, budgets["nbytes"])
    assert smallest(problem).nbytes == min(s.nbytes for s in choices)


@settings(max_examples=20)
@given(problems())
def test_a_front_is_of_choices_that_nothing_beats(problem):
    found = front(problem, 12)
    choices = every(problem)
    assert found[0].seconds == pytest.approx(min(s.seconds for s in choices))
    assert found[-1].loss == pytest.approx(min(s.loss for s in choices))
    for solution in found:
        better = [s for s in choices if at_most(s.loss, solution.loss)]
        assert at_most(solution.seconds, min(s.seconds for s in better) * 1.01)
    assert undominated(found) == found
    assert knee(found) in found


def test_a_knee_is_far_from_the_chord():
    points = [Solution((), *point, 0) for point in ((1, 10), (2, 2), (5, 1), (10, 0))]
    assert knee(points) == points[1]


def test_crossings_keep_neighbours_alike():
    """A second option would save 1 in each of three groups but 5 are paid where it meets a first
    one: all or none; with the loss of two of them allowed, none."""
    slow, loss, nbytes = np.array([3.0, 2.0]), np.array([0.0, 1.0]), np.ones(2)
    crossing = np.array([[0.0, 5.0], [5.0, 0.0]])
    edges = {(0, 1): crossing, (1, 2): crossing}
    problem = Problem([slow] * 3, [loss] * 3, [nbytes] * 3, edges)
    assert fastest(problem).choice == (1, 1, 1)
    assert fastest(problem, max_loss=2).choice == (0, 0, 0)
    assert finest(problem, max_seconds=8.9).choice == (1, 1, 1)
    assert finest(problem, max_seconds=5.9) is None


def test_a_hundred_groups_take_a_second():
    rng = np.random.default_rng(0)
    seconds = [np.sort(rng.uniform(5, 50, 12))[::-1] * 1e-6 for _ in range(100)]
    loss = [np.sort(rng.lognormal(-8, 2, 12)) for _ in range(100)]
    nbytes = [rng.uniform(1e3, 1e5, 12) for _ in range(100)]
    kinds = np.arange(12) % 3
    crossing = 4e-6 * (kinds[:, None] != kinds)
    edges = {(i, i + 1): crossing for i in range(99)}
    problem = Problem(seconds, loss, nbytes, edges)
    budget = float(sum(values.mean() for values in loss)) / 4
    start = time.process_time()
    found = fastest(problem, max_loss=budget)
    assert found is not None
    assert time.process_time() - start < 1.5
    whole = front(problem)
    assert len(whole) > 20
    near = min(s.seconds for s in whole if s.loss <= budget)
    assert 0.998 * found.seconds < near < 1.1 * found.seconds
