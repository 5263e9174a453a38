"""How work is split among threads, as far as it can be computed."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpgen.split import LEAST_TASK, Split, balance, most_threads, split_of


@pytest.mark.parametrize(
    ("pieces", "threads", "expected"),
    [
        (1, 1, Split(1, 1.0, 1.0)),
        (8, 4, Split(4, 0.25, 1.0)),
        (9, 4, Split(4, 3 / 9, 9 / 12)),
        (4, 64, Split(4, 0.25, 4 / 64)),
        (49, 32, Split(32, 2 / 49, 49 / 64)),
    ],
)
def test_ranges_are_as_equal_as_possible(pieces, threads, expected):
    assert balance(pieces, threads) == pytest.approx(expected)


@given(st.integers(1, 5000), st.integers(1, 1024))
def test_it_is_what_the_ranges_give(pieces, threads):
    ends = [t * pieces // threads for t in range(threads + 1)]
    sizes = [after - before for before, after in itertools.pairwise(ends)]
    mean = Fraction(sum(sizes), threads)
    found = balance(pieces, threads)
    assert found.tasks == sum(size > 0 for size in sizes)
    assert found.largest == pytest.approx(max(sizes) / pieces)
    assert found.balance == pytest.approx(float(mean / max(sizes)))


def test_small_kernels_are_split_among_few():
    assert [most_threads(n * LEAST_TASK) for n in (0, 0.9, 1.5, 2.01, 10.1)] == [1, 1, 1, 2, 10]
    small = {"pieces": 100, "work": 2.01 * LEAST_TASK}
    assert split_of(small, 64) == balance(100, 2)
    assert split_of(small | {"work": 1.0}, 64) == balance(100, 64)
    assert split_of({"pieces": 100}, 64) is None
