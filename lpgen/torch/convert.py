"""From a float model to one with quantized layers."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from lpgen.errors import UserError
from lpgen.formats import Format
from lpgen.ops import hadamard
from lpgen.plans import FLOAT, Plan, Precision, read_plan
from lpgen.quantize import ranges
from lpgen.quantize.clip import rounded
from lpgen.quantize.weights import quantized
from lpgen.torch.calibrate import Seen, observe
from lpgen.torch.layers import Conv, Geometry, Linear, Quantized, Range, Weights
from lpgen.torch.recurrent import GRU, LSTM, directions

_RECURRENT = {nn.LSTM: LSTM, nn.GRU: GRU}


class FloatLayersWarning(UserWarning):
    """Layers that were to be quantized and stay float, with the reasons."""


class Layer(NamedTuple):
    """What became of a layer: its name in the model, its kind, its precision, and why it stays
    float where it does ("": it is quantized)."""

    name: str
    kind: str
    precision: str
    reason: str = ""

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.name}: {self.kind}, {self.precision}{why}"


def quantize(
    model: nn.Module,
    plan: Plan | str | os.PathLike[str] = "w8a8",
    calibration: Iterable[Any] | None = None,
) -> nn.Module:
    """A copy of a model, for inference, whose layers are quantized as a plan says.

    plan: a `Plan` whose nodes are names of modules, its file (a path that ends in .toml), or one
    precision for every layer, such as "w4a8" or "w4a8 row weight_group=64"; convolutions then have
    static scales. calibration: inputs of the model, each a tensor, a tuple of arguments or a dict
    of named ones. It is needed for static scales and for convolutions, whose kernels are for the
    sizes of images that it has; weights are rounded by GPTQ with it, to the nearest codes without.
    What the plan quantizes and no kernel serves stays float, with a FloatLayersWarning; `report`
    says all. Raises PlanError for a plan that does not fit, UserError for data that do not.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    wanted = _precisions(model, plan)
    seen = observe(model, wanted, calibration)
    done = []
    for name, precision in wanted.items():
        module = model.get_submodule(name)
        try:
            with torch.no_grad():
                made = _converted(module, precision, seen.get(name))
        except UserError as error:
            done.append(Layer(name, type(module).__name__, "float", str(error)))
            continue
        parent, _, own = name.rpartition(".")
        if not name:
            model = made
        else:
            setattr(model.get_submodule(parent), own, made)
        done.append(Layer(name, type(module).__name__, str(precision)))
    if left := [layer for layer in done if layer.reason]:
        text = "; ".join(map(str, left))
        warnings.warn(f"{len(left)} layers stay float: {text}", FloatLayersWarning, stacklevel=2)
    for module in model.modules():
        if isinstance(module, Quantized):
            module.pack()
    model.lpgen_layers = done
    return model


def report(model: nn.Module) -> list[Layer]:
    """What became of the layers of a model that `quantize` made; of the other modules that hold
    weights nothing was asked, and they are float."""
    found = {layer.name: layer for layer in getattr(model, "lpgen_layers", ())}
    inside = tuple(f"{name}." for name in found)
    for name, module in model.named_modules():
        own = next(module.parameters(recurse=False), None)
        if own is not None and name not in found and not name.startswith(inside):
            found[name] = Layer(name, type(module).__name__, "float", "not in the plan")
    return list(found.values())


def _precisions(model: nn.Module, plan: Plan | str | os.PathLike[str]) -> dict[str, Precision]:
    """The precision of each layer that is to be quantized, by the name of its module."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, _KINDS)}
    if not isinstance(plan, Plan) and not str(plan).endswith(".toml"):
        asked = Precision.parse(str(plan))
        return {} if asked == FLOAT else {n: _uniform(m, asked) for n, m in layers.items()}
    plan = plan if isinstance(plan, Plan) else read_plan(plan)
    plan.check_nodes(list(layers))
    return {n: plan.precision(n) for n in layers if plan.precision(n) != FLOAT}


def _uniform(module: nn.Module, asked: Precision) -> Precision:
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return Precision(asked.weight, Format("u", asked.act.bits), "static")
    return asked


def _converted(module: nn.Module, precision: Precision, seen: Seen | None) -> nn.Module:
    """The quantized module. Raises UserError where there is none."""
    if reason := _why_not(module, precision, seen):
        raise UserError(reason)
    if isinstance(module, nn.Linear):
        found = _weights(module.weight, module.bias, precision, seen)
        return Linear(precision, found, _range(precision, seen))
    if isinstance(module, nn.RNNBase):
        return _RECURRENT[type(module)](module, dict(_products(module, precision, seen)))
    axes, geometry = module.weight.dim() - 2, Geometry.of(module)
    weight = module.weight if axes == 2 else module.weight.unsqueeze(2)
    oc, ic, kh, kw = weight.shape
    rows = weight.permute(0, 2, 3, 1).reshape(oc, kh * kw * ic)
    found = _weights(rows, module.bias, precision, seen)
    found = found._replace(codes=found.codes.reshape(oc, kh, kw, ic))
    return Conv(precision, found, _range(precision, seen), geometry, axes, sorted(seen.sizes))


def _why_not(module: nn.Module, precision: Precision, seen: Seen | None) -> str:
    """Why a layer has no quantized form, or ""."""
    convolution = isinstance(module, nn.Conv1d | nn.Conv2d)
    if type(module) not in _KINDS:
        return f"{type(module).__name__} may do more than its base"
    if precision.bit_layers:
        return "layers of bits are for kernels and networks, not for modules"
    if seen is None and (convolution or precision.scales == "static"):
        what = "sizes of images and scales" if convolution else "static scales"
        return f"{what} come from calibration data, and there are none"
    if convolution and precision.scales != "static":
        return f"scales of a convolution are static, not {precision.scales}"
    if convolution and (precision.weight_group or precision.hadamard):
        return "weight_group and hadamard are for matrix products"
    if convolution and module.padding_mode != "zeros":
        return f"padding_mode {module.padding_mode}"
    if isinstance(module, nn.RNNBase) and precision.scales == "static":
        return "scales of a recurrent layer are found in each call, not static"
    if isinstance(module, nn.LSTM) and module.proj_size:
        return f"proj_size={module.proj_size}"
    return ""


def _weights(
    weight: torch.Tensor, bias: torch.Tensor | None, precision: Precision, seen: Seen | None
) -> Weights:
    """Codes of weights [n, k], as the precision says; by GPTQ, and with a bias that makes up for
    the mean error, where it was seen what they meet."""
    w, form, group = weight.double().numpy(), precision.weight, precision.weight_group
    added = None if bias is None else bias.double().numpy()
    if seen is None or not seen.rows.rows:
        turned = hadamard.rotated(w, precision.hadamard) if precision.hadamard else w
        codes = rounded(turned, form, group)
    else:
        found = quantized(w, precision, seen.rows)
        codes, added = found.codes, found.shift + (0 if added is None else added)
    scale = codes.scale if group else codes.scale[:, 0]
    return Weights(codes.codes, scale, None if added is None else np.float32(added))


def _range(precision: Precision, seen: Seen | None) -> Range | None:
    """The static scale and zero point of the input, None: they are found in each call."""
    if precision.scales != "static":
        return None
    found = ranges.chosen(seen.values.sample, precision.act)
    return Range(float(found.scale), found.zero)


def _products(
    module: nn.RNNBase, precision: Precision, seen: Seen | None
) -> Iterator[tuple[str, Linear]]:
    """The two products of each layer and direction. GPTQ where their inputs are known: those of the
    first layer."""
    for layer, end in directions(module):
        for which in ("ih", "hh"):
            weight = getattr(module, f"weight_{which}{end}")
            bias = getattr(module, f"bias_{which}{end}") if module.bias else None
            known = seen and which == "ih" and layer == 0
            found = _weights(weight, bias, precision, seen if known else None)
            yield f"{which}{end}", Linear(precision, found)


_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LSTM, nn.GRU)
