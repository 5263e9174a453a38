"""What a model gets where nobody says more than one precision, and what is done to it first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lpgen.formats import Format
from lpgen.plans import LayerGroup, Plan, uniform
from lpgen.quantize.data import Call
from lpgen.quantize.equalize import equalized
from lpgen.quantize.smooth import smoothed

if TYPE_CHECKING:
    import onnx

_WIDE = Format("s", 8)


def usual(groups: Sequence[LayerGroup], text: str, model: str = "") -> Plan:
    """The plan of one precision for all, but that depthwise convolutions, and those that come
    first, have weights of 8 bits: they are few, and lose most. Raises PlanError."""
    plan = uniform(groups, text, model)
    wide = {group.name for i, group in enumerate(groups) if _sensitive(group, i)}
    return replace(
        plan,
        groups=tuple(
            replace(group, precision=replace(group.precision, weight=_WIDE))
            if group.name in wide and group.precision.weight is not None
            else group
            for group in plan.groups
        ),
    )


def _sensitive(group: LayerGroup, place: int) -> bool:
    convolutions = [layer for layer in group.layers if layer.kind == "Conv"]
    return any(layer.groups > 1 for layer in convolutions) or (place == 0 and bool(convolutions))


def prepared(
    model: onnx.ModelProto,
    calls: Sequence[Call],
    plan: Plan,
    equalize: bool = False,
    smooth: float | None = None,
) -> onnx.ModelProto:
    """The float model, the same function, made easier to quantize; smooth: alpha of SmoothQuant."""
    if equalize:
        model = equalized(model)
    if smooth is not None:
        model = smoothed(model, calls, plan, smooth)
    return model
