import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpgen.space import MAX_PRODUCT, Space


def tiles() -> Space:
    return Space(
        {"mr": (1, 2, 4, 6), "nr": (16, 32, 64), "copy": (False, True), "order": ("mn", "nm")},
        valid=lambda p: p["mr"] * p["nr"] <= 192,
    )


def test_enumerates_the_valid_points_in_order():
    space = Space({"a": (1, 2, 3), "b": ("x", "y")}, valid=lambda p: (p["a"], p["b"]) != (2, "x"))
    assert space.product == 6
    assert len(space) == 5
    assert list(space) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "y"},
        {"a": 3, "b": "x"},
        {"a": 3, "b": "y"},
    ]


def test_length_is_the_product_without_a_predicate():
    assert len(Space({"a": (1, 2, 3), "b": ("x", "y")})) == 6
    assert len(Space({})) == 1


@pytest.mark.parametrize(
    "point",
    [
        {"mr": 3, "nr": 16, "copy": True, "order": "mn"},
        {"mr": 1, "nr": 16, "copy": True},
        {"mr": 1, "nr": 16, "copy": True, "order": "mn", "more": 1},
        {"mr": 6, "nr": 64, "copy": True, "order": "mn"},
        {"mr": True, "nr": 16, "copy": True, "order": "mn"},
        {"mr": 1.0, "nr": 16, "copy": True, "order": "mn"},
        {"mr": [1], "nr": 16, "copy": True, "order": "mn"},
        {"mr": 1, "nr": 16, "copy": 1, "order": "mn"},
        None,
        "mr",
    ],
)
def test_does_not_contain(point):
    assert point not in tiles()


def test_contains_in_any_order_of_names():
    assert {"order": "mn", "nr": 16, "copy": True, "mr": 1} in tiles()


@given(st.integers(0, 2**32 - 1))
def test_every_move_stays_in_the_space(seed):
    rng = np.random.default_rng(seed)
    space = tiles()
    a, b = space.sample(rng), space.sample(rng)
    assert a in space
    mutant = space.mutate(rng, a)
    assert mutant in space
    assert 1 <= sum(mutant[name] != a[name] for name in a) <= 2
    child = space.crossover(rng, a, b)
    assert child in space


def test_moves_are_repeatable_and_reach_everything():
    def walk(seed):
        rng, space = np.random.default_rng(seed), tiles()
        points = [space.sample(rng)]
        for _ in range(400):
            points.append(space.mutate(rng, points[-1]))
        return points

    assert walk(3) == walk(3)
    assert len({tuple(p.values()) for p in walk(3)}) == len(tiles())


def test_sample_finds_a_rare_point():
    space = Space(
        {"a": tuple(range(100)), "b": tuple(range(100))}, lambda p: p["a"] == 7 and p["b"] == 9
    )
    rng = np.random.default_rng(0)
    assert space.sample(rng) == {"a": 7, "b": 9}
    assert space.mutate(rng, {"a": 7, "b": 9}) == {"a": 7, "b": 9}


def test_a_space_without_a_valid_point():
    space = Space({"a": (1, 2)}, valid=lambda p: False)
    assert len(space) == 0
    with pytest.raises(ValueError, match="no combination of the knobs is valid"):
        space.sample(np.random.default_rng(0))


def test_features():
    space = tiles()
    point = {"mr": 2, "nr": 64, "copy": True, "order": "nm"}
    values = dict(zip(space.feature_names, space.features(point), strict=True))
    assert values == {
        "mr": 2,
        "log2(mr)": pytest.approx(np.log2(3)),
        "nr": 64,
        "log2(nr)": pytest.approx(np.log2(65)),
        "copy": 1,
        "order=mn": 0,
        "order=nm": 1,
    }
    assert space.features(point).dtype == np.float32


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"a": ()}, "knob a has no choices"),
        ({"a": (1, 1)}, "knob a repeats a choice"),
        ({"a": (1.5,)}, "knob a has a choice that is not int, str or bool"),
        ({"a": ((1, 2),)}, "knob a has a choice that is not int, str or bool"),
        ({"a": (1, "x")}, "knob a mixes types"),
        ({"a": (1, True)}, "knob a mixes types"),
        ({c: tuple(range(50)) for c in "abcd"}, f"6250000 combinations, more than {MAX_PRODUCT}"),
    ],
)
def test_a_wrong_definition_is_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        Space(knobs)


@given(st.data())
def test_a_predicate_is_asked_for_what_it_looks_at(data):
    """A random predicate that looks at knobs one after the other: what the space counts, lists and
    draws is what asking for every combination gives, and no answer is asked for twice."""
    knobs = {name: tuple(range(data.draw(st.integers(1, 4)))) for name in "abcd"}
    asked, plan = [], {}

    def valid(point):
        left, seen = list(knobs), ()
        while left and plan.setdefault(seen, data.draw(st.integers(-1, len(left)))) > 0:
            name = left.pop(plan[seen] - 1)
            seen = (*seen, (name, point[name]))
        asked.append(seen)
        return plan.get(seen, 0) == 0

    space = Space(knobs, valid)
    count = len(space)
    assert len(asked) == len(set(asked))
    drawn = [space.sample(np.random.default_rng(seed)) for seed in range(9)] if count else []
    listed = list(space)
    assert len(asked) == len(set(asked))
    everything = [
        dict(zip(knobs, values, strict=True)) for values in itertools.product(*knobs.values())
    ]
    assert listed == [point for point in everything if valid(point)]
    assert count == len(listed)
    assert all(point in listed for point in drawn)


def test_every_point_is_drawn_equally_often():
    space, rng = tiles(), np.random.default_rng(0)
    assert len(space) == 40
    counts = Counter(tuple(space.sample(rng).values()) for _ in range(4000))
    assert len(counts) == 40
    assert 60 < min(counts.values()) <= max(counts.values()) < 150
