"""How work is split among threads, as far as it can be computed."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpgen.runtime.split import LEAST_TASK, Split, balance, most_threads, split_of


@pytest.mark.parametrize(
    ("pieces", "threads", "expected"),
    [
        (1, 1, Split(1, 1.0, 1.0)),
        (8, 4, Split(4, 0.25, 1.0)),
        (9, 4, Split(3, 3 / 9, 1.0)),
        (4, 64, Split(4, 0.25, 1.0)),
        (49, 32, Split(25, 2 / 49, 49 / 50)),
        (80, 32, Split(27, 3 / 80, 80 / 81)),
    ],
)
def test_as_few_tasks_as_have_the_largest_share(pieces, threads, expected):
    assert balance(pieces, threads) == pytest.approx(expected)


@given(st.integers(1, 5000), st.integers(1, 1024))
def test_no_split_among_the_threads_is_shorter(pieces, threads):
    tasks, largest, mean_over_largest = balance(pieces, threads)
    ends = [t * pieces // tasks for t in range(tasks + 1)]
    sizes = [after - before for before, after in itertools.pairwise(ends)]
    assert tasks <= threads
    assert min(sizes) > 0
    assert max(sizes) == round(largest * pieces) == -(-pieces // threads)
    assert mean_over_largest == pytest.approx(pieces / tasks / max(sizes))


def test_small_kernels_are_split_among_few():
    assert [most_threads(n * LEAST_TASK) for n in (0, 0.9, 1.5, 2.01, 10.1)] == [1, 1, 1, 2, 10]
    small = {"pieces": 100, "work": 2.01 * LEAST_TASK}
    assert split_of(small, 64) == balance(100, 2)
    assert split_of(small | {"work": 1.0}, 64) == balance(100, 64)
    assert split_of({"pieces": 100}, 64) is None
