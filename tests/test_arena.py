"""The arena: blocks that are needed at one time never overlap, and little is wasted."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpgen.network import Network, Step, TensorType
from lpgen.network.arena import Block, arrange, lower_bound
from lpgen.network.plan import Where, plan
from lpgen.ops.signature import Argument, Role, Signature


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


@dataclass(frozen=True)
class Copies:
    """An operator that reads and writes so many bytes."""

    read: tuple[int, ...]
    written: int
    kind: str = "copies"

    @property
    def signature(self) -> Signature:
        inputs = (Argument(f"x{i}", Role.INPUT, (n,), "uint8") for i, n in enumerate(self.read))
        return Signature((*inputs, Argument("y", Role.OUTPUT, (self.written,), "uint8")))


@st.composite
def graphs(draw):
    """A network of any steps, and some of its tensors as outputs."""
    sizes = {"x": draw(st.integers(1, 200))}
    steps = []
    for i in range(draw(st.integers(1, 12))):
        read = draw(st.lists(st.sampled_from(sorted(sizes)), min_size=1, max_size=3, unique=True))
        op = Copies(tuple(sizes[name] for name in read), draw(st.integers(1, 2000)))
        inputs = {f"x{i}": name for i, name in enumerate(read)}
        steps.append(Step(f"s{i}", op, inputs, f"t{i}"))
        sizes[f"t{i}"] = op.written
    made = [step.output for step in steps]
    outputs = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
    kinds = {name: TensorType((size,), "uint8") for name, size in sizes.items()}
    return Network({"x": kinds["x"]}, {name: kinds[name] for name in outputs}, tuple(steps))


@given(graphs())
def test_what_a_step_reads_is_what_another_wrote(network):
    """The plan, played with memory that holds the numbers of steps."""
    made = plan(network)
    arena = np.full(made.arena_bytes, 255, np.uint8)
    callers = {n: np.full(t.shape, 255, np.uint8) for n, t in network.outputs.items()}

    def memory(name):
        place, size = made.places[name], network.tensors[name].shape[0]
        if place.where == Where.OUTPUT:
            assert list(network.outputs)[place.at] == name
            return callers[name]
        assert place.where == Where.ARENA
        assert place.at % 64 == 0
        return arena[place.at :][:size]

    numbers = {step.output: i for i, step in enumerate(network.steps)}
    for i, step in enumerate(network.steps):
        for name in set(step.inputs.values()) - {"x"}:
            assert (memory(name) == numbers[name]).all()
        memory(step.output)[...] = i
    assert all((callers[name] == numbers[name]).all() for name in network.outputs)
    assert made.places["x"] == (Where.INPUT, 0)


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
