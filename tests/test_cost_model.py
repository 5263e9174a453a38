"""The trees that a search teaches with what it measured."""

import numpy as np
import pytest
from fake_templates import Tiles
from searching import OP, OTHER, TARGET, Big, seconds_of

from lpgen.tune.cost_model import CostModel, relative_costs
from lpgen.tune.messages import Candidate


def test_costs_are_relative_and_bounded():
    costs = relative_costs([1e-3, 2e-3, None, 1.0])
    assert costs == pytest.approx([0, 0.5, 1, 0.999])
    assert relative_costs([None]) == [1]


def test_the_model_ranks_and_transfers_to_another_operator():
    model, space, rng = CostModel(0), Big().space(OP, TARGET), np.random.default_rng(0)
    for _ in range(150):
        knobs = space.sample(rng)
        model.add(OP, space, Candidate(Big(), knobs), seconds_of(knobs))
    assert model.rows_of_others(OTHER) == 150
    points = [space.sample(rng) for _ in range(200)]
    truth = np.log([seconds_of(point) for point in points])
    for op in (OP, OTHER):
        model.fit(op)
        predicted = model.predict(op, space, Big().name, points)
        assert np.corrcoef(predicted, truth)[0, 1] > 0.9


def test_the_model_learns_templates_one_after_another():
    model, big, tiles = CostModel(0), Big("fake", "big"), Tiles()
    space, small = big.space(OP, TARGET), tiles.space(OP, TARGET)
    model.add(OP, space, Candidate(big, big.default(OP, TARGET)), 1e-4)
    model.fit(OP)
    assert model.predict(OP, small, tiles.name, list(small)).shape == (len(small),)
    assert model.predict(OP, small, tiles.name, []).shape == (0,)
    model.add(OP, small, Candidate(tiles, tiles.default(OP, TARGET)), None)
    model.fit(OP)
    costs = [
        model.predict(OP, s, t.name, [t.default(OP, TARGET)])
        for s, t in ((space, big), (small, tiles))
    ]
    assert np.all(np.isfinite(costs))


def test_the_model_transfers_to_another_template_with_the_same_knobs():
    model, known, new = CostModel(0), Big("fake", "known"), Big("fake", "new")
    space, rng = Big().space(OP, TARGET), np.random.default_rng(0)
    for _ in range(150):
        knobs = space.sample(rng)
        model.add(OP, space, Candidate(known, knobs), seconds_of(knobs))
    knobs = new.default(OP, TARGET)
    model.add(OP, space, Candidate(new, knobs), 1.5 * seconds_of(knobs))
    model.fit(OP)
    points = [space.sample(rng) for _ in range(200)]
    truth = np.log([seconds_of(point) for point in points])
    predicted = model.predict(OP, space, new.name, points)
    assert np.corrcoef(predicted, truth)[0, 1] > 0.8
