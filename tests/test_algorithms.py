"""Every template of the registry computes exactly what the oracle does, at every level."""

from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest
from algorithm_cases import CASES, GENERAL, Cases
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kernels import LEVELS, WITHOUT_WEIGHTS, assert_exact, runs_here, template, template_of

from lpgen.ops import parse

NAMES = (*LEVELS, *WITHOUT_WEIGHTS)
ALGORITHMS = sorted({name.partition("/")[2] for name in NAMES})
PARTS = 6
"""Into how many parts the weight formats beside one of activations are cut; a day tries one."""
HEALTH = [HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large]


def cases_of(name: str) -> Cases:
    return CASES.get(name.rpartition("/")[2], GENERAL)


operator = cache(parse)


def _served(name: str, texts: Iterable[str]) -> list[str]:
    """Those of the workloads that a template serves at its level."""
    chosen, target = template_of(name)
    return [text for text in texts if chosen.why_not(operator(text), target) is None]


def each(section: str) -> pytest.MarkDecorator:
    """Each template at each level with the workloads of a section of its cases that it serves: one
    of every other row by day, in rotation, where each algorithm begins with another one."""
    found = []
    for name in NAMES:
        first = ALGORITHMS.index(name.rpartition("/")[2])
        for number, row in enumerate(cases_of(name).rows(section)):
            served = _served(name, row)
            for place, text in enumerate(served):
                turn, other = divmod(first + number, 2)
                by_day = not other and place == turn % len(served)
                marks = () if by_day else pytest.mark.nightly
                found.append(pytest.param(name, text, id=f"{name}-{text}", marks=marks))
    return pytest.mark.parametrize(("name", "text"), found)


def _pairs() -> list:
    """Rows of one activation format with every sixth weight format: each algorithm begins with
    another one by day, and meets the rest in the night."""
    found = []
    for name in NAMES:
        first = ALGORITHMS.index(name.rpartition("/")[2])
        for number, row in enumerate(cases_of(name).rows_of_pairs()):
            for part in range(PARTS):
                served = _served(name, row[part::PARTS])
                marks = () if (first + number + part) % PARTS == 0 else pytest.mark.nightly
                if served:
                    act = served[0].partition(" act=")[2].partition(" ")[0]
                    found.append(pytest.param(name, served, id=f"{name}-{act}-{part}", marks=marks))
    return found


@pytest.mark.matrix
@pytest.mark.parametrize(("name", "row"), _pairs())
def test_pairs_of_formats(name, row):
    for text in row:
        assert_exact(name, parse(text))


@pytest.mark.matrix
@each("formats")
def test_formats(name, text):
    assert_exact(name, parse(text))


@pytest.mark.matrix
@each("sizes")
def test_sizes_around_edges(name, text):
    assert_exact(name, parse(text))


@pytest.mark.matrix
@each("kinds")
def test_kinds(name, text):
    assert_exact(name, parse(text))


def _any_point(data: st.DataObject, names: list[str]) -> None:
    """A random point of the space of an operator that one of the templates serves."""
    name = data.draw(st.sampled_from(names))
    chosen, target = template(name)
    op = data.draw(cases_of(name).operators)
    assume(chosen.why_not(op, target) is None)
    seed = data.draw(st.integers(0, 2**31))
    assert_exact(name, op, chosen.space(op, target).sample(np.random.default_rng(seed)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_any_point_of_the_space(algorithm):
    names = [name for name in NAMES if name.endswith(f"/{algorithm}") and runs_here(name)]
    if not names:
        pytest.skip(f"this CPU has no level that {algorithm} is for")

    @settings(max_examples=cases_of(algorithm).examples, suppress_health_check=HEALTH)
    @given(data=st.data())
    def draw(data):
        _any_point(data, names)

    draw()


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, suppress_health_check=HEALTH)
@given(data=st.data())
def test_many_points_of_the_space(name, data):
    template(name)
    _any_point(data, [name])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=4, suppress_health_check=HEALTH)
@given(data=st.data())
def test_the_default_is_a_point_of_the_space(name, data):
    """Scheduled for every level, whatever this CPU has."""
    chosen, target = template_of(name)
    op = data.draw(cases_of(name).operators)
    assume(chosen.why_not(op, target) is None)
    assert chosen.default(op, target) in chosen.space(op, target)


@pytest.mark.parametrize("name", NAMES)
def test_a_choice_that_a_knob_has_not_is_refused_or_no_point(name):
    chosen, target = template_of(name)
    op = operator(_served(name, cases_of(name).texts())[0])
    knobs = chosen.default(op, target)
    space = chosen.space(op, target)
    assert knobs in space
    for key in knobs:
        assert {**knobs, key: 77_777} not in space
        assert {k: v for k, v in knobs.items() if k != key} not in space


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_is_tried(algorithm):
    names = [name for name in NAMES if name.endswith(f"/{algorithm}")]
    texts = list(cases_of(algorithm).texts())
    for name in names:
        assert len(_served(name, texts)) >= 15, name
