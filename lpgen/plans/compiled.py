"""What a plan says to the compiler of a quantized model: how activations of float32 are quantized.

Formats of weights, and static scales, are in the model itself (`lpgen.quantize`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import PlanError
from lpgen.formats import Format
from lpgen.onnx.values import Activations, Layered
from lpgen.plans.constants import Constants
from lpgen.plans.groups import Layer, groups_of
from lpgen.plans.plan import Plan
from lpgen.plans.precision import Precision

if TYPE_CHECKING:
    import onnx


Maker = Callable[[np.ndarray, Precision], tuple[Format, int, np.ndarray, dict[str, np.ndarray]]]
"""The bit layers of weights [n, k] (`quantize.layers.for_kernels`)."""


def activations_of(
    plan: Plan, model: onnx.ModelProto, maker: Maker | None = None, ask_layers: bool = False
) -> dict[str, Activations]:
    """How the nodes of a quantized model quantize activations, by name; none for static scales.
    maker: makes the bit layers that a plan asks for; ask_layers: how many are used is an input,
    and not what the plan says.

    Raises PlanError for a layer that the model has not, and for one whose weights are float, or
    have more bits than the plan says.
    """
    constants = Constants(model)
    layers = {layer.node: layer for group in groups_of(model) for layer in group.layers}
    plan.check_nodes(list(layers))
    found = {}
    for node, precision in plan.precisions.items():
        _check_weights(layers[node], precision, constants)
        if precision.weight is not None and precision.scales != "static":
            how = f"f32:{precision.scales}"
            layered = _layered(precision, maker, ask_layers) if precision.bit_layers else None
            found[node] = Activations(precision.act, how, precision.hadamard, layered)
    if ask_layers and all(how.layers is None for how in found.values()):
        raise PlanError("the plan stores no weights as bit layers, whose number could be an input")
    return found


def _layered(precision: Precision, maker: Maker | None, ask: bool) -> Layered:
    if maker is None:
        raise PlanError(f"{precision}: bit layers are made by lpgen.quantize, which is not asked")
    make = partial(maker, precision=precision)
    return Layered(None if ask else precision.bit_layers, precision.weight_group, make)


def _check_weights(layer: Layer, precision: Precision, constants: Constants) -> None:
    maker = constants.maker(layer.weight)
    quantized = maker is not None and maker.op_type == "DequantizeLinear"
    if precision.weight is None:
        if quantized:
            raise PlanError(f"{layer.node} is quantized, and the plan leaves it float")
        return
    if precision.bit_layers and not quantized:
        return  # the compiler makes the layers
    if not quantized or precision.bit_layers:
        raise PlanError(
            f"{layer.node} has {'quantized' if quantized else 'float'} weights, and the plan says "
            f"{precision}: `lpgen quantize MODEL --data FILE --plan PLAN` makes the model"
        )
    codes = constants[maker.input[0]].astype(np.int32)
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    if low < precision.weight.min or high > precision.weight.max:
        raise PlanError(
            f"{layer.node} has weights from {low} to {high}, and the plan says {precision.weight}: "
            f"{precision.weight.min} to {precision.weight.max}"
        )
