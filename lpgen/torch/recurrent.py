"""LSTM and GRU whose matrix products are quantized layers; gates stay float, in torch.

The products with the inputs of all steps are one call; those with the state are one call a step.
Formulas: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html (and GRU).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import nn

from lpgen.errors import UserError


def directions(module: nn.RNNBase) -> list[tuple[int, str]]:
    """The layers of a recurrent module, and in each its directions: the ends of its names."""
    ends = ("", "_reverse") if module.bidirectional else ("",)
    return [(layer, f"_l{layer}{end}") for layer in range(module.num_layers) for end in ends]


class _Recurrent(nn.Module, ABC):
    """The loop over layers, directions and steps; `_step` is of the kind."""

    def __init__(self, module: nn.RNNBase, products: Mapping[str, nn.Module]) -> None:
        """products: a layer for each of `ih_l0`, `hh_l0`, `ih_l0_reverse`, ..."""
        super().__init__()
        self.hidden_size, self.batch_first = module.hidden_size, module.batch_first
        self.directions = directions(module)
        for name, product in products.items():
            self.add_module(name, product)

    def _layers(self, x: torch.Tensor, state: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """x [steps, n, k] through all; state: tensors [directions, n, hidden]. The results of the
        last layer, and the new state."""
        ends: list[list[torch.Tensor]] = [[] for _ in state]
        width = 1 + self.directions[-1][1].endswith("_reverse")
        for first in range(0, len(self.directions), width):
            results = []
            for place in range(first, first + width):
                end = self.directions[place][1]
                begin = [part[place] for part in state]
                y, last = self._direction(x, end, begin)
                results.append(y)
                for found, part in zip(ends, last, strict=True):
                    found.append(part)
            x = torch.cat(results, -1)
        return x, *(torch.stack(part) for part in ends)

    def _direction(
        self, x: torch.Tensor, end: str, state: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        given, recurrent = getattr(self, f"ih{end}")(x), getattr(self, f"hh{end}")
        steps = list(given.unbind(0))
        backward = end.endswith("_reverse")
        found = []
        for step in reversed(steps) if backward else steps:
            state = self._step(step, recurrent(state[0]), state)
            found.append(state[0])
        return torch.stack(found[::-1] if backward else found), state

    @abstractmethod
    def _step(
        self, given: torch.Tensor, fed: torch.Tensor, state: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """The next state, its output first; given, fed: products with the input and the state."""

    def _run(
        self, x: torch.Tensor, state: list[torch.Tensor] | None, parts: int
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """With the batch where the module has it; x may be one sequence, [steps, k]."""
        if not isinstance(x, torch.Tensor):
            raise UserError(f"{type(self).__name__} takes tensors, not {type(x).__name__}")
        alone = x.dim() == 2
        if alone:
            x = x.unsqueeze(1)
            state = state and [part.unsqueeze(1) for part in state]
        elif self.batch_first:
            x = x.transpose(0, 1)
        if state is None:
            shape = len(self.directions), x.shape[1], self.hidden_size
            state = [x.new_zeros(shape) for _ in range(parts)]
        y, *state = self._layers(x, state)
        if alone:
            return y.squeeze(1), [part.squeeze(1) for part in state]
        return (y.transpose(0, 1) if self.batch_first else y), state


class LSTM(_Recurrent):
    """In place of `nn.LSTM`."""

    def forward(
        self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        y, (h, c) = self._run(x, None if state is None else list(state), 2)
        return y, (h, c)

    def _step(
        self, given: torch.Tensor, fed: torch.Tensor, state: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        i, f, g, o = (given + fed).chunk(4, -1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return [o.sigmoid() * c.tanh(), c]


class GRU(_Recurrent):
    """In place of `nn.GRU`."""

    def forward(
        self, x: torch.Tensor, state: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y, (h,) = self._run(x, None if state is None else [state], 1)
        return y, h

    def _step(
        self, given: torch.Tensor, fed: torch.Tensor, state: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        r, z, n = given.chunk(3, -1)
        fed_r, fed_z, fed_n = fed.chunk(3, -1)
        r, z = (r + fed_r).sigmoid(), (z + fed_z).sigmoid()
        n = (n + r * fed_n).tanh()
        return [(1 - z) * n + z * state[0]]
