"""Quantizers of single matrices, each against brute force or a closed form."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lpgen.errors import QuantizeError
from lpgen.formats import Format
from lpgen.quantize.clip import clipped_scale, rounded
from lpgen.quantize.codes import nearest, split
from lpgen.quantize.gptq import gptq, gptq_each, inverse_factor
from lpgen.quantize.greedy import planes, refitted
from lpgen.quantize.prefixes import bit_layers
from lpgen.quantize.scales import errors, searched

S4, S3, S2 = (Format("s", bits) for bits in (4, 3, 2))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def inputs(rng: np.random.Generator, rows: int, k: int) -> np.ndarray:
    """Inputs that are correlated, with a mean and some large channels."""
    mixed = rng.normal(size=(rows, k)) @ rng.normal(size=(k, k)) / np.sqrt(k)
    return (mixed + rng.normal(size=k)) * np.exp(rng.normal(size=k))


def lost(w: np.ndarray, q: np.ndarray, hessian: np.ndarray) -> float:
    """Squared error of the results of a layer."""
    return float(np.trace((w - q) @ hessian @ (w - q).T))


@pytest.mark.parametrize("form", [S2, S3, S4])
def test_a_clipped_scale_is_near_the_best_of_many(rng, form):
    w = rng.standard_t(3, size=(20, 64))

    def errors(scale):
        return ((nearest(w, scale[:, None], form) * scale[:, None] - w) ** 2).sum(1)

    largest = np.abs(w).max(1) / form.max
    best = np.min([errors(c * largest) for c in np.linspace(0.01, 1.2, 2000)], axis=0)
    found = errors(clipped_scale(w, form))
    assert (found <= 1.35 * best).all()
    assert found.sum() <= 1.1 * best.sum()


def test_rows_of_zeros_and_short_last_groups(rng):
    w = rng.normal(size=(3, 40))
    w[1] = 0
    found = rounded(w, S4, group=16)
    assert found.scale.shape == (3, 3)
    assert not found.codes[1].any()
    assert (found.scale > 0).all()
    last = rounded(w[:, 32:], S4)
    assert np.array_equal(found.codes[:, 32:], last.codes)
    assert np.abs(found.real() - w).max() < 0.6


def test_importance_moves_the_scale(rng):
    w = np.concatenate([rng.normal(size=(1, 63)), [[9.3]]], axis=1)
    of_all = np.ones(64)
    of_last = np.where(np.arange(64) == 63, 1e4, 1.0)
    errors = [np.abs(rounded(w, S3, importance=i).real() - w)[0, 63] for i in (of_all, of_last)]
    assert errors[1] < errors[0]


def test_gptq_of_independent_inputs_is_rounding(rng):
    w = rng.normal(size=(6, 50))
    hessian = np.diag(rng.uniform(1, 2, 50))
    assert np.array_equal(gptq(w, hessian, S4, 16).codes, rounded(w, S4, 16).codes)


def brain_surgery(w: np.ndarray, hessian: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """GPTQ by its definition: the inverse of what is left of H anew at each place."""
    w, order = w.copy(), np.argsort(-np.diag(hessian), kind="stable")
    q = np.zeros_like(w)
    for place, i in enumerate(order):
        left = order[place:]
        inverse = np.linalg.inv(hessian[np.ix_(left, left)])
        q[:, i] = nearest(w[:, i], scale, S4) * scale
        w[:, left] -= np.outer(w[:, i] - q[:, i], inverse[0]) / inverse[0, 0]
    return q


def test_gptq_of_many_small_matrices_is_that_of_each(rng):
    x = rng.normal(size=(6, 40, 9)) * rng.uniform(0.1, 3, (6, 1, 9))
    hessians = x.swapaxes(1, 2) @ x
    hessians[4] = 0  # a channel that is never on
    w = rng.normal(size=(12, 9))
    found = gptq_each(w, hessians, S4)
    for i, hessian in enumerate(hessians):
        alone, rows = gptq(w[2 * i : 2 * i + 2], hessian, S4), slice(2 * i, 2 * i + 2)
        assert np.array_equal(found.codes[rows], alone.codes)
        assert np.array_equal(found.scale[rows], alone.scale)
    with pytest.raises(QuantizeError, match="the Hessian of k=9 inputs is singular with damping 0"):
        gptq_each(w, np.ones((6, 9, 9)), S4, damping=0)


def test_gptq_is_optimal_brain_surgery_place_by_place(rng):
    k = 150  # more than one block
    w, x = rng.normal(size=(4, k)), inputs(rng, 600, k)
    found = gptq(w, x.T @ x, S4, damping=0)
    expected = brain_surgery(w, x.T @ x, found.scale[:, 0].astype(np.float64))
    assert np.allclose(found.real(), expected, atol=1e-6)


def test_gptq_comes_near_the_best_codes_that_there_are(rng):
    ratios = []
    for _ in range(20):
        w, x = rng.normal(size=(1, 5)), inputs(rng, 40, 5)
        hessian = x.T @ x
        found = gptq(w, hessian, S2, damping=0)
        scale = found.scale.astype(np.float64)
        every = np.array(list(itertools.product(range(-2, 2), repeat=5))) * scale
        best = min(lost(w, q[None], hessian) for q in every)
        near = rounded(w, S2).real()
        ratios.append([lost(w, q, hessian) / best for q in (found.real(), near)])
    found, near = np.exp(np.log(ratios).mean(0))
    assert found < 2 < near


@pytest.mark.parametrize("group", [0, 32])
def test_gptq_loses_less_than_rounding(rng, group):
    w, x = rng.standard_t(4, size=(24, 96)), inputs(rng, 400, 96)
    hessian = x.T @ x
    found, near = gptq(w, hessian, S3, group), rounded(w, S3, group)
    assert lost(w, found.real(), hessian) < 0.5 * lost(w, near.real(), hessian)
    assert set(np.unique(found.codes)) <= set(range(-4, 4))


def test_the_factor_of_the_inverse(rng):
    x = inputs(rng, 60, 20)
    upper = inverse_factor(x.T @ x, damping=0)
    assert np.allclose(upper.T @ upper, np.linalg.inv(x.T @ x))
    assert not np.tril(upper, -1).any()


def test_a_singular_hessian_is_said_in_one_line(rng):
    x = rng.normal(size=(3, 8))
    assert gptq(rng.normal(size=(2, 8)), x.T @ x, S4).codes.shape == (2, 8)  # damped
    with pytest.raises(QuantizeError, match="Hessian of k=8 inputs is singular with damping 0"):
        gptq(rng.normal(size=(2, 8)), x.T @ x, S4, damping=0)
    with pytest.raises(QuantizeError, match="not finite"):
        gptq(rng.normal(size=(2, 8)), np.full((8, 8), np.nan), S4)


def test_inputs_that_are_all_zero_leave_rounding(rng):
    w = rng.normal(size=(2, 8))
    assert np.array_equal(gptq(w, np.zeros((8, 8)), S4).codes, rounded(w, S4).codes)


def test_planes_are_greedy(rng):
    w = rng.normal(size=(4, 40))
    found = planes(w, 5, group=16)
    first = split(np.abs(w), 16)
    assert np.allclose(found.scale[0, :, :2], first[:, :2].mean(2))  # the least squared error
    assert np.allclose(found.scale[0, :, 2], np.abs(w[:, 32:]).mean(1))
    errors = [((found.real(layers) - w) ** 2).sum() for layers in range(1, 6)]
    assert errors == sorted(errors, reverse=True)


def test_refitted_planes_solve_the_normal_equations(rng):
    w = rng.normal(size=(3, 32))
    found = planes(w, 4)
    again = refitted(found, w, 3)
    for i in range(3):
        best = np.linalg.lstsq(found.signs[:3, i].T.astype(float), w[i], rcond=None)[0]
        assert np.allclose(again.scale[:, i, 0], best, atol=1e-6)
    assert ((again.real(3) - w) ** 2).sum() <= ((found.real(3) - w) ** 2).sum()


def test_scales_and_offsets_of_prefixes_are_least_squares(rng):
    w = rng.normal(size=(3, 48))
    found = bit_layers(w, group=16)
    for n in (1, 3, 8):
        u = split((found.codes >> (8 - n)).astype(float), 16)
        for i, j in itertools.product(range(3), range(3)):
            scale, offset = np.polyfit(u[i, j], split(w, 16)[i, j], 1)
            assert np.allclose([found.scale[n][i, j], found.offset[n][i, j]], [scale, offset])
        assert np.abs(split(found.real(n) - w, 16).mean(2)).max() < 1e-6


def test_prefixes_of_one_code_are_nearly_as_good_as_codes_of_their_own(rng):
    w = rng.standard_t(5, size=(16, 256))
    found = bit_layers(w, group=64)
    for n, limit in ((3, 1.15), (4, 1.15), (6, 1.5)):
        own = rounded(w, Format("s", n), 64).real()
        assert ((found.real(n) - w) ** 2).sum() < limit * ((own - w) ** 2).sum()
    saturated = planes(w, 8, 64).real(8)
    assert ((found.real(8) - w) ** 2).sum() < 0.05 * ((saturated - w) ** 2).sum()


def test_prefixes_with_the_hessian_lose_less(rng):
    w, x = rng.normal(size=(16, 64)), inputs(rng, 300, 64)
    hessian = x.T @ x
    near, found = bit_layers(w, group=32), bit_layers(w, hessian, group=32)
    for n in (2, 3, 4):
        assert lost(w, found.real(n), hessian) < 0.8 * lost(w, near.real(n), hessian)


def test_codes_of_prefixes_are_the_best_of_all_256(rng):
    """For independent inputs nothing is moved on, and each code has the least objective."""
    w = rng.normal(size=(2, 8))
    found = bit_layers(w, layers=(2, 4))
    fit = bit_layers(w, layers=(2, 4))
    codes = np.arange(256)
    for i, j in itertools.product(range(2), range(8)):
        objective = sum(
            2.0**n * (w[i, j] - fit.scale[n][i, 0] * (codes >> (8 - n)) - fit.offset[n][i, 0]) ** 2
            for n in (2, 4)
        )
        own = objective[found.codes[i, j]]
        assert own <= objective.min() + 0.05  # scales were fitted once more since


@pytest.mark.parametrize("group", [0, 20])
@pytest.mark.parametrize("form", [S3, S4])
def test_scales_by_the_error_of_results_lose_less_in_every_row(rng, form, group):
    w, x = rng.standard_t(4, size=(24, 70)), inputs(rng, 400, 70)
    hessian = x.T @ x
    found, plain = (each(w, hessian, form, group) for each in (searched, gptq))
    before, after = (errors(w - q.real(), hessian) for q in (plain, found))
    assert (after <= before * (1 + 1e-6)).all()
    assert after.sum() < 0.95 * before.sum()
    for part in (0.98, 1.02):  # one factor for a row is the best there is
        assert (errors(w - part * found.real(), hessian) >= after).all()
    assert found.codes.min() >= form.min
    assert found.codes.max() <= form.max


def test_scales_of_what_is_zero(rng):
    w = np.stack([np.zeros(8), rng.normal(size=8)])
    found = searched(w, np.zeros((8, 8)), S4)
    assert not found.codes[0].any()
    assert (found.scale > 0).all()
