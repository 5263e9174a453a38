"""The cost model: its data, its shortlist, what it chooses for operators nobody has tuned."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import rows_that_differ
from strategies import convs, denses

from lpgen import cost, templates
from lpgen.cost.features import COUNTS, LATER_COUNTS, NAMES, features
from lpgen.cost.model import Model
from lpgen.cost.trees import Forest
from lpgen.ops import parse
from lpgen.records import Log, Record, shipped
from lpgen.records.choose import choose, ranking
from lpgen.target import Target, known
from lpgen.templates import Template

CONV = "conv2d h=28 w=28 ic=128 oc=128 kernel=3 pad=1"
OPERATORS = (
    *(f"{CONV} act={act} weight={weight}" for act, weight in (("u1", "b1"), ("u8", "s8"))),
    "conv2d h=7 w=7 ic=96 oc=96 kernel=3 pad=1 groups=96 act=u8 weight=s8",
    "conv2d h=9 w=9 ic=32 oc=32 kernel=3 pad=1 groups=8 act=u8 weight=s8",
    "dense m=1 n=512 k=256 act=u8 weight=s2",
    "dense m=64 n=100 k=96 act=u1 weight=t2",
    "dense m=2 n=64 k=64 act=u8 weight=s4 scale=group32 out=f32",
)
TARGETS = st.sampled_from(list(known().values()))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(denses() | convs(), TARGETS)
def test_without_any_record_every_operator_gets_a_point_of_a_template_that_serves(op, target):
    best = ranking(op, target)[0]
    assert best.template.why_not(op, target) is None
    assert best.template in templates.templates_for(op, target)
    assert best.knobs in best.template.space(op, target)


@pytest.mark.sample(2)
@pytest.mark.parametrize("target", rows_that_differ().values(), ids=rows_that_differ())
def test_all_that_is_counted_has_a_name_and_a_price(target):
    for op in map(parse, OPERATORS):
        for candidate in ranking(op, target)[:3]:
            template = candidate.template
            counts = template.work(op, target, candidate.knobs)
            # "counting" and "multiplied" are for the static model alone.
            assert set(counts) <= {*COUNTS, *LATER_COUNTS, "counting", "multiplied"}, template
            assert all(math.isfinite(count) and count >= 0 for count in counts.values())
            assert cost.shipped().prices_of(template, target), template


def test_the_same_question_has_the_same_answer():
    op, target = parse(OPERATORS[0]), Target.parse("zen3")
    first, again = (cost.candidates(op, target, templates.templates_for(op, target)) for _ in "ab")
    assert first == again


@pytest.mark.parametrize(
    ("target", "act", "weight", "expected"),
    [
        ("zen4", "u1", "b1", {"bitserial"}),
        ("avx512vnni", "u1", "b1", {"bitserial", "lut_sum", "lut_product"}),
        ("avx2", "u1", "b1", {"lut_sum", "lut_product"}),
        ("avx2", "u2", "s2", {"lut_sum", "lut_product", "winograd"}),
        ("avx512vnni", "u4", "s4", {"winograd"}),
        ("avx512vnni", "u8", "s8", {"winograd"}),
        ("avx2", "u8", "s8", {"winograd"}),
        ("sapphirerapids", "u8", "s8", {"mma"}),
    ],
)
def test_bit_widths_choose_the_algorithm(target, act, weight, expected):
    best = ranking(parse(f"{CONV} act={act} weight={weight}"), Target.parse(target))[0]
    assert best.template.algorithm in expected


def test_few_rows_take_a_tile_of_them_all_or_half():
    op = parse("dense m=16 n=768 k=3072 act=u8 weight=s8")
    assert ranking(op, Target.parse("zen4"))[0].knobs["rows"] in (8, 16)


def test_caches_of_the_target_count():
    op, zen = parse(OPERATORS[1]), Target.parse("zen3")
    template = Template("x86", "dot")
    knobs = template.default(op, zen) | {"m_block": 0, "n_block": 0, "outer": "mn", "inner": "mn"}
    near, far = ("l2", "l3")
    assert template.work(op, zen, knobs)[near] > 0
    small = replace(zen, l2=2**15)
    assert template.work(op, small, knobs)[far] > template.work(op, zen, knobs)[far]


def test_trees_are_those_of_xgboost():
    xgboost = pytest.importorskip("xgboost")
    from lpgen.tune.fit_cost.trees import TREES, forest_of

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 6)).astype(np.float32)
    labels = np.sin(rows[:, 0] * 2) + rows[:, 1] * (rows[:, 2] > 0)
    data = xgboost.DMatrix(rows, label=labels)
    booster = xgboost.train(TREES | {"base_score": 0.0}, data, 20)
    forest = forest_of(booster)
    assert np.allclose(forest.predict(rows), booster.predict(data), atol=1e-5)
    again = Forest.from_json(json.loads(json.dumps(forest.to_json())))
    assert np.allclose(again.predict(rows), forest.predict(rows), atol=2e-3)


def test_prices_are_fitted_to_records():
    from lpgen.tune.fit_cost.prices import fit_prices
    from lpgen.tune.fit_cost.samples import samples_of

    (log,) = (log for log in shipped() if log.path.stem == "avx512bw")
    found = [r for r in log.records() if r.template in ("x86/bitserial", "x86/lut_sum")]
    samples = samples_of(found[:24], lambda record: True)
    prices, factors = fit_prices(samples)
    assert set(prices) == {sample.prices for sample in samples} >= {"bitserial", "lut_sum"}
    assert all(set(p) <= {*COUNTS, *LATER_COUNTS} and min(p.values()) >= 0 for p in prices.values())
    assert len(factors) == len({sample.group for sample in samples})


def test_a_model_goes_on_learning(tmp_path):
    pytest.importorskip("xgboost")
    from lpgen.tune.fit_cost import fit_on
    from lpgen.tune.fit_cost.samples import samples_of

    op, target, log = parse(OPERATORS[1]), Target.parse("avx2"), Log(tmp_path / "log.jsonl")
    template, model = Template("x86", "dot"), cost.shipped()
    rng, space = np.random.default_rng(1), template.space(op, target)
    points = list({repr(point): point for point in (space.sample(rng) for _ in range(96))}.values())

    def costs(model: Model) -> np.ndarray:
        counts = [template.work(op, target, knobs) for knobs in points]
        return model.costs(op, template, target, points, counts)

    # Copies of the left side take thrice as long as the model thinks.
    slower = np.array([3.0 if knobs["left"] == "copied" else 1.0 for knobs in points])
    assert len(set(slower)) == 2
    for knobs, seconds in zip(points, np.exp(costs(model)) * 1e-9 * slower, strict=True):
        log.append(Record(op.name, target.name, template.name, knobs=knobs, seconds=seconds))
    samples = samples_of(log.records(), lambda record: True)
    learned = fit_on(samples, model)
    change = costs(learned) - costs(model)
    assert change[slower == 3].mean() > change[slower == 1].mean() + 0.3
    assert learned.prices == model.prices
    assert learned.made["added"][-1] == {"candidates": len(points), "operators": 1}
    kept = len(model.forest.value)
    assert np.array_equal(learned.forest.value[:kept], model.forest.value)


def test_a_model_is_what_was_written():
    model = cost.shipped()
    again = Model.from_json(json.loads(json.dumps(model.to_json())))
    assert again.prices == model.prices
    op, target = parse(OPERATORS[1]), Target.parse("avx2")
    template = Template("x86", "dot")
    knobs = template.default(op, target)
    counts = template.work(op, target, knobs)
    found = features(op, "dot", knobs, counts, model.prices_of(template, target))
    assert found.shape == (len(NAMES),)
    costs = [m.costs(op, template, target, [knobs], [counts])[0] for m in (model, again)]
    assert costs[0] == pytest.approx(costs[1], abs=1e-3)


def record(log: Log, template: Template, target: Target, op, knobs=None, trials=1) -> dict:
    knobs = knobs or template.default(op, target)
    fields = {"knobs": knobs, "seconds": 1e-5, "best": True, "trials": trials}
    log.append(Record(op.name, target.name, template.name, **fields))
    return knobs


def test_a_record_of_narrower_vectors_does_not_bind(tmp_path):
    """Its knobs serve with the wider ones, or the model's do."""
    op, sse4, log = parse(OPERATORS[1]), Target.parse("sse4"), Log(tmp_path / "log.jsonl")
    record(log, Template("x86", "dot"), sse4, op)
    choice = choose(op, "avx2", [log], use_shipped=False)
    assert choice.template in ("x86/dot", "x86/winograd")
    assert choice.target.level == "avx2"
    assert choice.origin in ("model", "record of sse4")


def test_a_record_of_a_lesser_level_serves_where_nothing_faster_is_expected(tmp_path):
    op, lesser, log = parse(OPERATORS[0]), Target.parse("avx512bw"), Log(tmp_path / "log.jsonl")
    best = ranking(op, Target.parse("avx512vnni"))[0]
    assert best.template.algorithm in ("bitserial", "lut_sum", "lut_product")  # no VNNI
    record(log, best.template, lesser, op, best.knobs)
    choice = choose(op, "avx512vnni", [log], use_shipped=False)
    assert (choice.template, choice.knobs) == (best.template.name, best.knobs)
    assert choice.origin == "record of avx512bw"


def test_a_record_of_many_trials_says_more_than_one_of_few(tmp_path):
    op, lesser = parse(OPERATORS[1]), Target.parse("avx512bw")
    ranked = ranking(op, Target.parse("avx512vnni"))
    near = (c for c in ranked if 0.04 < c.cost - ranked[0].cost < 0.13)
    worse = next(c for c in near if c.knobs in c.template.space(op, lesser))
    for trials, origin in ((64, "record of avx512bw"), (2, "model")):
        log = Log(tmp_path / f"{trials}.jsonl")
        record(log, worse.template, lesser, op, worse.knobs, trials)
        assert choose(op, "avx512vnni", [log], use_shipped=False).origin == origin


def test_a_new_instruction_is_not_given_up_for_a_record(tmp_path):
    op, lesser, log = parse(OPERATORS[0]), Target.parse("avx512vnni"), Log(tmp_path / "log.jsonl")
    record(log, Template("x86", "dot"), lesser, op)
    choice = choose(op, "zen4", [log], use_shipped=False)
    assert (choice.origin, choice.knobs["count"]) == ("model", "instruction")
