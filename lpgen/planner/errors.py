"""Bit errors in the stored weights of a plan: which groups have to be protected from them.

Codes of weights mind differently (`lpgen.sensitivity`). Those of the groups that lose most get
check bytes, as few groups as are needed for the plan, run whole with errors in all others, to keep
its metric but for LOSS of it. Scales are always protected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import PlanError
from lpgen.plans import Plan, Precision
from lpgen.plans.constants import Constants
from lpgen.plans.groups import node_names
from lpgen.sensitivity.table import LOSS, Result
from lpgen.sensitivity.variants import flipped_values

if TYPE_CHECKING:
    import onnx


def with_flips(
    model: onnx.ModelProto, precisions: Mapping[str, Precision], nodes: Iterable[str], rate: float
) -> onnx.ModelProto:
    """A copy of a quantized model in which each bit of the codes of these nodes' weights is flipped
    with a probability, always the same ones."""
    from onnx import helper

    copy = type(model)()
    copy.CopyFrom(model)
    constants = Constants(copy)
    stored = {tensor.name: tensor for tensor in copy.graph.initializer}
    by_name = dict(zip(node_names(copy.graph), copy.graph.node, strict=True))
    for name in nodes:
        maker = constants.maker(by_name[name].input[1])
        assert maker is not None
        tensor = stored[maker.input[0]]
        codes = constants[maker.input[0]].astype(np.int8)
        rng = np.random.default_rng(list(name.encode()))
        hit = flipped_values(codes, precisions[name].weight, rate, rng)
        made = helper.make_tensor(tensor.name, tensor.data_type, codes.shape, hit.ravel())
        tensor.CopyFrom(made)
    return copy


def protected(
    plan: Plan,
    rate: float,
    loss: Callable[[str], float],
    result: Callable[[Plan], Result],
    metric: float,
    progress: Callable[[str], None] = lambda text: None,
) -> Plan:
    """The plan with as few protected groups as keep its metric.

    loss: the divergence that errors at this rate in one group, by its name, cost; result: of a
    plan run whole with errors; metric: of it without. Raises PlanError where not even all groups
    protected keep it.
    """
    least = metric - LOSS * abs(metric)
    quantized = [group.name for group in plan.groups if group.precision.weight is not None]
    order = sorted(quantized, key=loss, reverse=True)

    def first(count: int) -> Plan:
        return _with(plan, rate, order[:count])

    def keeps(count: int) -> bool:
        found = result(first(count)).metric
        progress(f"{count} of {len(order)} groups protected: {found:.5g}")
        return found >= least

    low, high = 0, len(order)
    while low < high:  # fewest that keep it; with all there are no errors
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(middle) else (middle + 1, high)
    if high == len(order) and not keeps(high):
        raise PlanError(f"the plan loses more than {LOSS:.0%} of its metric without bit errors")
    return first(high)


def _with(plan: Plan, rate: float, names: Sequence[str]) -> Plan:
    groups = (replace(group, protect=group.name in names) for group in plan.groups)
    return replace(plan, groups=tuple(groups), bit_errors=rate)
