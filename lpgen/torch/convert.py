"""From a float model to one with quantized layers."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from lpgen.errors import UserError
from lpgen.formats import Format
from lpgen.plans import FLOAT, Plan, Precision, read_plan
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
        hessian = seen and seen.hessian
        found = _weights(module.weight, module.bias, precision, hessian)
        return Linear(precision, found, _range(precision, seen))
    if isinstance(module, nn.RNNBase):
        return _RECURRENT[type(module)](module, dict(_products(module, precision, seen)))
    axes = module.weight.dim() - 2
    pairs = (module.kernel_size, module.stride, module.padding, module.dilation)
    geometry = Geometry(
        *(_pair(pair) for pair in pairs[:2]), _padding(module), _pair(pairs[3]), module.groups
    )
    weight = module.weight if axes == 2 else module.weight.unsqueeze(2)
    oc, ic, kh, kw = weight.shape
    rows = weight.permute(0, 2, 3, 1).reshape(oc, kh * kw * ic)
    found = _weights(rows, module.bias, precision, seen.hessian)
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
    if convolution and _padding(module) is None:
        return "padding that is not the same on both sides"
    if isinstance(module, nn.RNNBase) and precision.scales == "static":
        return "scales of a recurrent layer are found in each call, not static"
    if isinstance(module, nn.LSTM) and module.proj_size:
        return f"proj_size={module.proj_size}"
    return ""


def _weights(
    weight: torch.Tensor, bias: torch.Tensor | None, precision: Precision, hessian: Any
) -> Weights:
    """Codes of weights [n, k], as the precision says; hessian: of the inputs [k, k], or None."""
    from lpgen.quantize.clip import rounded
    from lpgen.quantize.gptq import gptq
    from lpgen.quantize.hadamard import rotated, rotated_hessian

    w = weight.double().numpy()
    if precision.hadamard:
        w = rotated(w, precision.hadamard)
        hessian = None if hessian is None else rotated_hessian(hessian, precision.hadamard)
    form, group = precision.weight, precision.weight_group
    found = rounded(w, form, group) if hessian is None else gptq(w, hessian, form, group)
    scale = found.scale if group else found.scale[:, 0]
    return Weights(found.codes, scale, None if bias is None else bias.float().numpy())


def _range(precision: Precision, seen: Seen | None) -> Range | None:
    """The scale and the zero point that hold what calibration has seen, and zero exactly."""
    if precision.scales != "static":
        return None
    form, low, high = precision.act, min(seen.low, 0.0), max(seen.high, 0.0)
    if form.encoding == "s" or form.min < 0:
        return Range(max(-low, high) / form.max or 1.0, 0)
    scale = (high - low) / form.max or 1.0
    return Range(scale, min(form.max, round(-low / scale)))


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
            found = _weights(weight, bias, precision, seen.hessian if known else None)
            yield f"{which}{end}", Linear(precision, found)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """Of rows and columns; a single one is that of columns, of one row."""
    return tuple(value) if len(value) == 2 else (1, value[0])


def _padding(module: nn.Module) -> tuple[int, int] | None:
    """Rows and columns of padding on each side; None: the sides differ."""
    if module.padding == "valid":
        return 0, 0
    if module.padding == "same":
        wide = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        sides = [w // 2 for w in wide]
        if any(w % 2 for w in wide):
            return None
    else:
        sides = list(module.padding)
    return tuple(sides) if len(sides) == 2 else (0, sides[0])


_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LSTM, nn.GRU)
