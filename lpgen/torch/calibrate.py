"""What calibration data show of the inputs of layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from lpgen.errors import UserError
from lpgen.plans import Precision
from lpgen.quantize.calibration import Seen as Rows
from lpgen.quantize.calibration import Values
from lpgen.torch.layers import Geometry

MOST_ROWS = 1024
"""Rows of a layer's input that one batch adds; of more they are drawn at random."""

MOST_VALUES = 2**14


@dataclass
class Seen:
    """Of a layer: the values of its input, the rows that its weights meet (of each group), and the
    sizes of images."""

    values: Values = field(default_factory=Values)
    rows: Rows = field(default_factory=Rows)
    sizes: set[tuple[int, int]] = field(default_factory=set)


def observe(
    model: nn.Module, layers: Mapping[str, Precision], data: Iterable[Any] | None
) -> dict[str, Seen]:
    """Run the model on the data and look at the inputs of some layers. Raises UserError for data
    that the model does not take, or that hold NaN."""
    if data is None:
        return {}
    found: dict[str, Seen] = {}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(partial(_look, found, name))
        for name in layers
    ]
    try:
        with torch.no_grad():
            for number, batch in enumerate(data):
                _run(model, batch, number)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _run(model: nn.Module, batch: Any, number: int) -> None:
    arguments = batch if isinstance(batch, tuple) else () if isinstance(batch, dict) else (batch,)
    named = batch if isinstance(batch, dict) else {}
    for value in (*arguments, *named.values()):
        floats = isinstance(value, torch.Tensor) and value.is_floating_point()
        if floats and not torch.isfinite(value).all():
            raise UserError(f"calibration batch {number} holds NaN or infinity")
    try:
        model(*arguments, **named)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the model does not take calibration batch {number}: {reason}") from None


def _look(found: dict[str, Seen], name: str, module: nn.Module, arguments: tuple) -> None:
    if not isinstance(arguments[0], torch.Tensor):
        return  # packed sequences: nothing is known of them
    x = arguments[0].float()
    seen = found.setdefault(name, Seen())
    rng = np.random.default_rng(seen.rows.rows)
    seen.values.add(x.numpy(), MOST_VALUES, rng)
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        image = x.unsqueeze(-2) if isinstance(module, nn.Conv1d) else x
        seen.sizes.add((image.shape[-2], image.shape[-1]))
        try:
            rows = _patches(module, image)
        except UserError:
            return  # no kernel has such a layer, which will be said
    else:
        rows = x.reshape(1, -1, x.shape[-1])
    count = rows.shape[1]
    if count > MOST_ROWS:
        rows = rows[:, np.sort(rng.choice(count, MOST_ROWS, replace=False))]
    if count:
        seen.rows.add(rows.numpy())


def _patches(module: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """What the rows of the weights meet: [groups, pixels, kh * kw * channels], channels last."""
    whole = Geometry.of(module)
    columns = nn.functional.unfold(
        image, whole.kernel, dilation=whole.dilation, padding=whole.padding, stride=whole.stride
    )  # [n, groups * channels * taps, pixels]
    n, _, pixels = columns.shape
    channels = image.shape[1] // whole.groups
    parted = columns.view(n, whole.groups, channels, -1, pixels)
    return parted.permute(1, 0, 4, 3, 2).reshape(whole.groups, n * pixels, -1)
