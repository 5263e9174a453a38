"""Weights split into a dense part of few bits and outliers."""

import numpy as np
import pytest
from scipy import sparse

from lpgen.errors import FormatError
from lpgen.ops import outliers, parse


def heavy(shape, rng):
    """Weights of which a few are far larger than the others."""
    return rng.standard_t(2.5, shape) * rng.uniform(0.5, 2, (shape[0], *[1] * (len(shape) - 1)))


@pytest.mark.parametrize("form", ["s4", "s3", "s2", "t2", "b1", "c3:-9,-4,-1,0,1,4,9"])
def test_splitting_leaves_less_error(form):
    w = heavy((24, 3, 3, 40), np.random.default_rng(0))
    errors = []
    for budget in (0, 0.001, 0.005, 0.02, 400, 1.0 - 1e-9):
        found = outliers.split(w, form, budget)
        count = round(budget * w.size) if budget < 1 else budget
        assert found.sparse.nnz <= count
        errors.append(float(np.square(found.weights - w).sum()))
        # An outlier is right to half a step, unless a byte does not reach it.
        step = found.scale[:, None]
        error = np.abs(found.weights - w).reshape(24, -1) / step
        own = (found.sparse.toarray() != 0) & (np.abs(found.sparse.toarray()) < 127)
        assert error[own].max(initial=0) <= 0.5 + 1e-4
        assert set(np.unique(found.dense)) <= set(outliers.Format.parse(form).values().tolist())
    assert errors[1] < errors[0]
    assert errors[3] < 0.75 * errors[0]
    assert errors[2] < errors[1]
    assert errors[5] < errors[3]


def test_both_parts_through_a_kernel():
    rng = np.random.default_rng(1)
    found = outliers.split(heavy((40, 64), rng), "s4", 0.01)
    op = parse(
        "dense m=33 n=40 k=64 act=u8 weight=s4 out=f32 scale=channel "
        f"outliers={found.sparse.nnz + 3}"
    )
    parameters = outliers.parameters(op, found.sparse.tocsc()) | {"scale": found.scale}
    x = op.act.random(rng, op.x_shape)
    sums = x.astype(np.int64) @ (found.dense.astype(np.int64) + found.sparse.toarray()).T
    y = op.reference(x, found.dense, **parameters)
    np.testing.assert_array_equal(y, sums.astype(np.float32) * found.scale)


def test_what_cannot_be_split_or_given():
    w = np.ones((2, 3))
    for wrong, form, budget, message in (
        (w, "s4", 7, r"budget=7 is outside 0\.\.6"),
        (w, "s4", -1, "budget=-1 is outside"),
        (w, "s4", np.nan, "budget=nan is outside"),
        (w * 1j, "s4", 1, "weights: 2 axes of complex128, expected real numbers"),
        (w, "u4", 1, "format u4 has no values of both signs"),
        (w * np.nan, "s4", 1, "not all finite"),
    ):
        with pytest.raises(FormatError, match=message):
            outliers.split(wrong, form, budget)
    op = parse("dense m=1 n=2 k=3 act=u8 weight=s4 outliers=2")
    for matrix, message in (
        (np.ones((3, 2), int), r"shape \(3, 2\), expected \(2, 3\)"),
        (np.ones((2, 3), int), "6 outliers, the operator has outliers=2"),
        (np.diag([128, 1, 0])[:2], r"outlier 128 is outside -128\.\.127"),
        (np.diag(np.uint64([2**64 - 1, 1, 0]))[:2], "outlier 18446744073709551615 is outside"),
        (np.diag([1.5, 1, 0])[:2], "outliers: 2 axes of float64, expected 2 of integers"),
    ):
        for form in (matrix, sparse.csr_array(matrix)):
            with pytest.raises(FormatError, match=message):
                outliers.parameters(op, form)
    twice = sparse.coo_array((np.int8([100, 100]), ([1, 1], [2, 2])), shape=(2, 3))
    with pytest.raises(FormatError, match=r"outlier 200 is outside -128\.\.127"):
        outliers.parameters(op, twice)
