"""Whole plans as they will run: quantized weights, and activations through their codes."""

from __future__ import annotations

from collections.abc import Sequence

from lpgen.plans import Plan
from lpgen.quantize.calibration import Calibration
from lpgen.quantize.data import Call
from lpgen.quantize.model import quantize
from lpgen.quantize.session import Session
from lpgen.sensitivity.faked import Act, faked
from lpgen.sensitivity.measure import Measure
from lpgen.sensitivity.metrics import Metric
from lpgen.sensitivity.table import Result


class Whole:
    """Plans of one model; calls: what outputs are compared on [those that calibrate]."""

    def __init__(
        self, calibration: Calibration, metric: Metric, calls: Sequence[Call] = ()
    ) -> None:
        self.calibration = calibration
        self._measure = Measure(calibration, metric, calls)

    def result(self, plan: Plan) -> Result:
        """How far the outputs of a plan are from those of the float model: of the model that
        `lpgen.quantize` makes, with dynamic scales as kernels find them."""
        quantized = {n: p for n, p in plan.precisions.items() if p.weight is not None}
        if not quantized:
            return self._measure.result(self._measure.reference)
        model = quantize(self.calibration, plan).model
        acts = {
            node: Act(precision, rotated=True)
            for node, precision in quantized.items()
            if precision.scales != "static"
        }
        session = Session(faked(model, acts))
        return self._measure.result([session(call) for call in self._measure.calls])
