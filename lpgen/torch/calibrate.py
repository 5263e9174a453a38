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


@dataclass
class Seen:
    """Of a layer: the least and the largest value of its input, the sum of x^T x over its rows
    [k, k] (None for a depthwise convolution, whose rows are its channels' own), and the sizes of
    images."""

    low: float = float("inf")
    high: float = float("-inf")
    hessian: np.ndarray | None = None
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
    x = arguments[0]
    seen = found.setdefault(name, Seen())
    low, high = torch.aminmax(x)
    seen.low, seen.high = min(seen.low, float(low)), max(seen.high, float(high))
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        image = x.unsqueeze(-2) if isinstance(module, nn.Conv1d) else x
        seen.sizes.add(tuple(image.shape[-2:]))
        rows = None if module.groups > 1 else _patches(module, image)
    else:
        rows = x.reshape(-1, x.shape[-1])
    if rows is not None:
        rows = rows.double()
        new = (rows.T @ rows).numpy()
        seen.hessian = new if seen.hessian is None else seen.hessian + new


def _patches(module: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """What the columns of the weights meet: [pixels, kh * kw * ic], channels last."""
    wide = (1,) if isinstance(module, nn.Conv1d) else ()
    none = (0,) if isinstance(module, nn.Conv1d) else ()
    if isinstance(module.padding, str):
        both = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        sides = [w // 2 if module.padding == "same" else 0 for w in both]
    else:
        sides = module.padding
    kernel = (*wide, *module.kernel_size)
    columns = nn.functional.unfold(
        image,
        kernel,
        dilation=(*wide, *module.dilation),
        padding=(*none, *sides),
        stride=(*wide, *module.stride),
    )  # [n, ic * kh * kw, pixels]
    n, _, pixels = columns.shape
    parted = columns.view(n, image.shape[1], -1, pixels)  # [n, ic, taps, pixels]
    return parted.permute(0, 3, 2, 1).reshape(n * pixels, -1)
