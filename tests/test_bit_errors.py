"""Bit errors in stored weights: check bytes, plans that say what is protected, and libraries whose
weights are right although their file is not."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpgen import runtime
from lpgen.errors import LibraryError, NetworkError, PlanError
from lpgen.network import Network, Step, TensorType, build
from lpgen.ops import parse
from lpgen.planner.errors import protected
from lpgen.plans import Group, Plan, Precision
from lpgen.runtime import ecc
from lpgen.sensitivity import Result

# ---- check bytes


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 70), seed=st.integers(0, 999), errors=st.integers(0, 2), data=st.data())
def test_one_wrong_bit_is_corrected_and_two_are_noticed(size, seed, errors, data):
    right = np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)
    known = ecc.checks(right)
    assert known.size == -(-size // 8)
    word = data.draw(st.integers(0, known.size - 1))
    bits_there = 8 * min(8, size - 8 * word)
    places = st.integers(0, bits_there - 1) | st.integers(64, 71)
    hit, wrong = (
        data.draw(st.lists(places, min_size=errors, max_size=errors, unique=True)),
        known.copy(),
    )
    damaged = right.copy()
    for place in hit:
        if place < 64:
            damaged[8 * word + place // 8] ^= np.uint8(1 << place % 8)
        else:
            wrong[word] ^= np.uint8(1 << place - 64)
    found, corrected, lost = ecc.corrected(damaged, wrong)
    assert (corrected, lost) == {0: (0, 0), 1: (1, 0), 2: (0, 1)}[errors]
    if errors < 2:
        np.testing.assert_array_equal(found, right)


# ---- plans


def plan_of_layers(count: int = 6) -> Plan:
    how = Precision.parse("w4a8 row")
    groups = (Group(f"layer{i}", (f"layer{i}",), how) for i in range(count))
    return Plan((*groups, Group("last", ("last",), Precision.parse("float"))))


def test_a_plan_says_what_is_protected():
    plan = protected(plan_of_layers(), 1e-4, lambda name: int(name[-1]), lambda p: Result(0, 1), 1)
    assert plan.bit_errors == 1e-4
    assert not any(group.protect for group in plan.groups)
    with_some = Plan.from_toml(
        plan.to_toml().replace('scales = "row"', 'scales = "row"\nprotect = true', 1)
    )
    assert [group.protect for group in with_some.groups] == [True, *[False] * 6]
    assert with_some.exposed == [f"layer{i}" for i in range(1, 6)]
    assert Plan.from_toml(with_some.to_toml()) == with_some


@pytest.mark.parametrize("fewest", range(7))
def test_as_few_groups_as_keep_the_metric_are_protected(fewest):
    """Those that lose most; the metric is that of the plan run whole."""
    asked = []

    def result(plan: Plan) -> Result:
        asked.append(sum(group.protect for group in plan.groups))
        return Result(0.0, 0.9 if asked[-1] >= fewest else 0.85)

    found = protected(plan_of_layers(), 1e-3, lambda name: int(name[-1]), result, 0.905)
    names = {group.name for group in found.groups if group.protect}
    assert names == {f"layer{i}" for i in range(6 - fewest, 6)}
    assert len(asked) <= 4


def test_a_plan_that_errors_do_not_explain():
    with pytest.raises(PlanError, match="loses more than 1% of its metric without bit errors"):
        protected(plan_of_layers(), 1e-3, lambda name: 1, lambda plan: Result(0, 0.5), 0.9)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("bit_errors = 0.5", "bit_errors is 0.5, expected a rate from 0 to 0.01"),
        ('bit_errors = "some"', "bit_errors is 'some', expected a rate"),
        ('[[group]]\nname = "a"\nweight = "s4"\nprotect = 1', "a: protect is 1, expected true"),
    ],
)
def test_plans_that_say_it_wrong(line, reason):
    with pytest.raises(PlanError, match=reason):
        Plan.from_toml(line)


def test_bits_of_exposed_weights_are_flipped():
    pytest.importorskip("onnx")
    from plan_models import mlp

    from lpgen.planner.errors import with_flips
    from lpgen.plans import groups_of, uniform
    from lpgen.plans.constants import Constants
    from lpgen.quantize import quantize
    from lpgen.quantize.calibration import Calibration

    calls = [{"x": np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32)}]
    plan = uniform(groups_of(mlp()), "w4a8 row")
    model = quantize(Calibration(mlp(), calls), plan).model
    changed = with_flips(model, plan.precisions, ["second", "beside"], 0.05)
    before, after = Constants(model), Constants(changed)
    for name in ("first", "beside", "second", "last"):
        a, b = (constants[f"{name}.codes"].astype(int) for constants in (before, after))
        flips = np.bitwise_count((a + 8) ^ (b + 8)).sum() / (4 * a.size)
        assert b.min() >= -8
        assert b.max() <= 7
        assert 0.02 < flips < 0.09 if name in ("second", "beside") else flips == 0, name


# ---- libraries


def network() -> Network:
    """x [1, 64] -> a -> b: two dense layers, of which `a` minds errors little."""
    rng, steps, read = np.random.default_rng(0), [], "x"
    for name in ("a", "b"):
        op = parse(
            "dense m=1 n=64 k=64 act=s8 weight=s4 input=f32:row out=f32 scale=channel bias=f32"
        )
        example = op.example(rng)
        given = {"inputs": {"x": read}, "output": name, "sources": (f"node {name}",)}
        steps.append(
            Step(name, op, weights=example.weights, parameters=example.parameters, **given)
        )
        read = name
    row = TensorType((1, 64), "float32")
    return Network({"x": row}, {"b": row}, tuple(steps))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    path = tmp_path_factory.mktemp("errors") / "net.so"
    return build(network(), "native", path, weights_beside=True, exposed=["node a"])


X = np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32)


@pytest.fixture
def load(built, tmp_path):
    """A function that loads a copy of the library whose weights have these bits flipped."""

    def load(flips=()):
        gc.collect()  # what a library of the same contents has mapped would serve this one, too
        for suffix in (".so", ".weights", ".weights.checks"):
            data = bytearray(built.with_suffix(suffix).read_bytes())
            for byte, bit in flips if suffix == ".weights" else ():
                data[byte] ^= 1 << bit
            (tmp_path / "net").with_suffix(suffix).write_bytes(data)
        return runtime.load(tmp_path / "net.so").network

    return load


def parts(built) -> tuple[list[int], list[int]]:
    """The bytes of the file of weights with check bytes, and those without."""
    spans, _ = ecc._spans(built.with_suffix(".weights.checks").read_bytes())
    size = built.with_suffix(".weights").stat().st_size
    checked = [byte for first, count in spans for byte in range(first, first + count)]
    return checked, sorted({*range(size)} - {*checked})


def test_wrong_bits_of_what_is_protected_are_set_right(built, load):
    expected = network().reference({"x": X})["b"]
    net = load()
    np.testing.assert_array_equal(net(X), expected)
    assert net.corrected_words == 0
    checked, bare = parts(built)
    # Codes of `a`, 64 x 64 of 4 bits, but for whole lines of 64 bytes.
    assert 64 * 64 // 2 - 128 < len(bare) <= 64 * 64 // 2
    flips = [(byte, byte % 8) for byte in checked if byte % 24 == 0]
    del net
    net = load(flips)
    np.testing.assert_array_equal(net(X), expected)
    assert net.corrected_words == len(flips) > 50


def test_wrong_bits_of_what_is_not_are_there(built, load):
    _, bare = parts(built)
    flips = [(byte, 7) for byte in bare[::16]]
    net = load(flips)
    found = net(X)
    assert net.corrected_words == 0
    expected = network().reference({"x": X})["b"]
    assert not np.array_equal(found, expected)
    assert np.isfinite(found).all()


def test_two_wrong_bits_of_a_protected_word(built, load):
    checked, _ = parts(built)
    with pytest.raises(LibraryError, match=r"net\.weights: 1 words .* more than one wrong bit"):
        load([(checked[-1], 0), (checked[-1], 5)])(X)


def test_check_bytes_that_are_none(built, load, tmp_path):
    net = load([(100, 0)])
    checks = tmp_path / "net.weights.checks"
    checks.write_bytes(b"something else")
    with pytest.raises(LibraryError, match=r"checks: is damaged, or holds no check bytes of net"):
        net(X)
    checks.unlink()
    with pytest.raises(LibraryError, match=r"checks: No such file"):
        net(X)


def test_check_bytes_are_for_a_file_of_weights(tmp_path):
    with pytest.raises(NetworkError, match="check bytes are for weights beside the library"):
        build(network(), "native", tmp_path / "net.so", exposed=["node a"])
