"""The arena: blocks that are needed at one time never overlap, and little is wasted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpgen.network.arena import Block, arrange, lower_bound


@st.composite
def blocks(draw):
    found = []
    for _ in range(draw(st.integers(0, 30))):
        first = draw(st.integers(0, 20))
        last = first + draw(st.integers(0, 6))
        found.append(Block(64 * draw(st.integers(1, 40)), first, last))
    return found


@given(blocks())
def test_blocks_that_live_together_do_not_overlap(given_blocks):
    offsets, nbytes = arrange(given_blocks)
    for i, (at, block) in enumerate(zip(offsets, given_blocks, strict=True)):
        assert at % 64 == 0
        assert 0 <= at <= at + block.nbytes <= nbytes
        for other_at, other in zip(offsets[:i], given_blocks[:i], strict=True):
            apart = at + block.nbytes <= other_at or other_at + other.nbytes <= at
            assert apart or block.last < other.first or other.last < block.first
    assert nbytes >= lower_bound(given_blocks)


@given(blocks())
def test_the_lower_bound_is_the_largest_sum_of_any_step(given_blocks):
    sums = [sum(b.nbytes for b in given_blocks if b.first <= s <= b.last) for s in range(30)]
    assert lower_bound(given_blocks) == max(sums)


def test_an_arena_takes_as_much_as_lives_at_once():
    chain = [Block(64 * n, i, i + 1) for i, n in enumerate((5, 9, 4, 7, 8, 1))]
    offsets, nbytes = arrange(chain)
    assert nbytes == lower_bound(chain) == 64 * 15
    assert arrange([]) == ([], 0)
    assert offsets == arrange(chain)[0]  # the same each time


@pytest.mark.parametrize("seed", range(10))
def test_graphs_like_networks_are_within_the_bar(seed):
    """Chains of blocks with residuals and branches, sizes that fall as images do: 1.15."""
    rng = np.random.default_rng(seed)
    found, step, size = [], 0, 4096
    for _ in range(16):
        branches, depth = int(rng.integers(1, 5)), int(rng.integers(1, 4))
        found.append(Block(64 * size, step, step + branches * depth + 1))  # the residual
        for branch in range(branches):
            for level in range(depth):
                begin = step + 1 + branch * depth + level
                last = begin + 1 if level + 1 < depth else step + branches * depth + 1
                found.append(Block(64 * int(size * rng.uniform(0.25, 2)), begin, last))
        step += branches * depth + 1
        size = max(64, int(size * rng.choice([1, 1, 0.5])))
    assert arrange(found)[1] <= 1.15 * lower_bound(found)
