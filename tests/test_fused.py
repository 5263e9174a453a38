"""Multiplication and addition of float32 with one rounding, in NumPy and in kernels."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from without_weights import problem

from lpgen import runtime
from lpgen.build import build
from lpgen.errors import UserError
from lpgen.network import Network, Step, TensorType, rounded_for
from lpgen.ops import parse
from lpgen.ops.cell import GruCell, LstmCell
from lpgen.ops.functions import FUNCTIONS, adds_products
from lpgen.ops.fused import Sums
from lpgen.records.choose import choose
from lpgen.target import Target, cpu_features

NATIVE = Target.parse("native")
LEVELS = ["native"] if NATIVE.has_fma else []
LEVELS += [] if Target.parse("avx2").missing_on(cpu_features()) else ["avx2"]

REAL = st.floats(-(2.0**60), 2.0**60, width=32) | st.floats(-(2.0**-100), 2.0**-100, width=32)


def rounded(value: Fraction) -> np.float32:
    """The float32 that is nearest, of two the even one."""

    def apart(near: np.float32) -> tuple[Fraction, int]:
        return abs(Fraction(float(near)) - value), int(near.view(np.int32)) & 1

    near = np.float32(float(value))
    beside = [np.nextafter(near, np.float32(to)) for to in (-np.inf, np.inf)]
    return min(
        (near, *beside), key=lambda v: (abs(Fraction(float(v)) - value), v.view(np.int32) & 1)
    )


def tied(draws: int, seed: int = 0) -> np.ndarray:
    """[3, draws] of a, b and c: a * b + c is so near the middle of two float32 that float64 does
    not tell them apart."""
    rng = np.random.default_rng(seed)
    c = np.float32(rng.integers(1 << 23, 1 << 24, draws) * rng.choice([-1, 1], draws))
    t = np.float32(rng.integers(1, 1 << 8, draws) * 2.0**-23)
    a, b = 1 + t, (1 - t) * np.float32(rng.choice([-0.5, 0.5], draws))
    scale = np.float32(2.0) ** rng.integers(-20, 20, draws)
    return np.float32([a * scale, b, c * scale])


def sums(a, b, c) -> np.ndarray:
    a, b, c = (np.atleast_1d(np.float32(value)) for value in (a, b, c))
    sums = Sums("sum", a, b)
    return sums(c, sums.a, sums.b)


@given(REAL, REAL, REAL)
def test_sums_are_rounded_once(a, b, c):
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    assert sums(a, b, c)[0] == rounded(exact)


def test_sums_next_to_a_tie_are_rounded_once():
    values = tied(2000)
    found = sums(*values)
    exact = [Fraction(a) * Fraction(b) + Fraction(c) for a, b, c in values.astype(float).T]
    assert (found == [rounded(value) for value in exact]).all()
    twice = np.float32(values[0].astype(float) * values[1] + values[2])
    assert (found != twice).any()


def test_what_is_no_number():
    inf, nan = np.inf, np.nan
    a, b, c = [inf, inf, 1, nan, 3e38, 0], [1, 1, 1, 1, 10, inf], [1, -inf, inf, 1, -inf, 1]
    expected = [inf, nan, inf, nan, -inf, nan]
    assert np.array_equal(sums(a, b, c), np.float32(expected), equal_nan=True)


@pytest.mark.parametrize("target", LEVELS)
def test_kernels_round_once(target, tmp_path):
    """1 * c + a * b, of sums next to a tie, subnormal ones, and such that are no numbers."""
    count = 75
    a, b, c = tied(count)
    c[-12:-8] = a[-12:-8] = [0, -0.0, np.inf, np.nan]
    a[-8:], b[-8:], c[-8:] = 2.0**-70, np.linspace(1, 2, 8) * 2.0**-70, 2.0**-140
    one, none = np.ones_like(c), np.zeros_like(c)
    left, right = np.stack([one, a], 1), np.stack([c, b], 1)
    pixels, weights = np.stack([c, a], 1), np.stack([one, b], 1)
    layer = f"conv2d_f32 oc={count} rounded=sum"
    calls = {
        f"matmul batch={count} m=1 n=1 k=2 rounded=sum": (left[:, None], right[:, :, None]),
        f"{layer} h=1 w=2 ic={count} kernel=1x2 groups={count}": (pixels.T, weights),
        f"{layer} h={count} w=1 ic=2 kernel=1": (pixels[:, None], weights),
    }
    choices = [choose(parse(text), target) for text in calls]
    library = runtime.load(build(choices, tmp_path / "sums.so"))
    found = []
    for text, (x, w) in calls.items():
        op = parse(text)
        given = [x, w] if op.kind == "matmul" else [x[None], op.arranged(w), none]
        given = [np.reshape(v, a.shape) for v, a in zip(given, op.signature.inputs, strict=True)]
        found.append(library[str(op)](*given))
        assert np.array_equal(found[-1], op.reference(*given), equal_nan=True), text
    for y in (found[0].ravel(), found[1].ravel(), np.diagonal(found[2].reshape(count, count))):
        assert np.array_equal(y, sums(a, b, c), equal_nan=True)


@pytest.mark.parametrize("target", LEVELS)
def test_functions_and_rows_round_once(target, tmp_path):
    """On all exponents, around 1, and on what is no number."""
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, 300, dtype=np.uint32).view(np.float32)
    x = np.concatenate([bits, rng.normal(0, 4, 700).astype(np.float32)])
    names = [name for name in FUNCTIONS if adds_products(name)]
    assert {"exp", "log", "tanh", "gelu", "hard_sigmoid"} <= set(names)
    assert "relu" not in names
    texts = [f"unary size=1000 function={name} rounded=sum" for name in names]
    texts += ["softmax rows=21 columns=35 rounded=sum", "softmax rows=3 columns=5 rounded=sum"]
    cells = [("lstm_cell", LstmCell.PARTS), ("gru_cell", GruCell.PARTS)]
    texts += [f"{kind} columns=37 part={part} rounded=sum" for kind, of in cells for part in of]
    choices = [choose(parse(text), target) for text in texts]
    library = runtime.load(build(choices, tmp_path / "functions.so"))
    for text in texts:
        op = parse(text)
        given = {"x": x} if op.kind == "unary" else problem(op)[0]
        with np.errstate(all="ignore"):
            y = op.reference(**given)
            assert np.array_equal(library[str(op)](**given), y, equal_nan=True), text


def test_where_nothing_is_added_nothing_is_said():
    assert str(parse("unary size=3 function=relu rounded=sum")) == "unary size=3 function=relu"
    assert parse("unary size=3 function=exp rounded=sum") != parse("unary size=3 function=exp")


def test_a_cpu_without_it_refuses():
    reason = "matmul with rounded=sum: sse4 has no instruction for that"
    with pytest.raises(UserError, match=reason):
        choose(parse("matmul m=1 n=1 k=2 rounded=sum"), "sse4")


@pytest.mark.parametrize(("targets", "rounded"), [("avx2", "sum"), ("avx2,sse4", "product")])
def test_networks_round_once_where_all_their_targets_can(targets, rounded):
    op = parse("matmul m=2 n=3 k=4")
    a, b, y = op.signature
    steps = (Step("product", op, {"a": "a", "b": "b"}, "y"),)
    kinds = [TensorType(argument.shape, argument.dtype) for argument in (a, b, y)]
    network = Network(dict(zip("ab", kinds, strict=False)), {"y": kinds[2]}, steps)
    found = rounded_for(network, [Target.parse(name) for name in targets.split(",")])
    assert found.steps[0].op == replace(op, rounded=rounded)
