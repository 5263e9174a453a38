"""Metrics: how near the outputs of a changed model are to those of the float one. More is better.

| name            | what                                                                       |
|-----------------|----------------------------------------------------------------------------|
| divergence      | 1 less the divergence of the outputs                                       |
| spearman        | rank correlation of the cosines of all pairs of output rows with the float |
|                 | model's                                                                    |
| top1            | the share of rows whose largest output is at the same place                |
| module:function | function(outputs, calls) of a module in the working folder or installed     |

The divergence of probabilities is their Kullback-Leibler divergence, of other outputs the sum of
squared errors over the sum of squares. It adds up over layers, nearly, and is what plans reckon
with; a metric is what a plan is accepted by.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lpgen.errors import UserError

Outputs = Sequence[Mapping[str, np.ndarray]]
"""The outputs of each call by name."""

_TINY = 1e-12


@dataclass(frozen=True)
class Metric:
    """function(outputs, outputs of the float model, calls) -> a number."""

    name: str
    function: Callable[[Outputs, Outputs, Outputs], float]

    def __call__(self, found: Outputs, reference: Outputs, calls: Outputs) -> float:
        """The metric of some outputs. Raises UserError where a function of the user's fails."""
        try:
            return float(self.function(found, reference, calls))
        except Exception as error:  # a function of the user's may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"metric {self.name}: {reason[:200]}") from None


def metric_of(text: str) -> Metric:
    """The metric of a name, or module:function. Raises UserError where there is none."""
    if text in _NAMED:
        return Metric(text, _NAMED[text])
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        known = ", ".join(_NAMED)
        raise UserError(f"metric {text!r} is unknown; known: {known}, module:function")
    sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise UserError(f"metric {text}: {error}") from None
    finally:
        sys.path.pop(0)
    if not callable(function):
        raise UserError(f"metric {text}: {module} has no function {name}")
    return Metric(text, lambda found, reference, calls: function(found, calls))


def divergence(found: Outputs, reference: Outputs) -> float:
    """The mean over the float outputs; infinity where a number is not finite."""
    names = [name for name, array in reference[0].items() if array.dtype.kind == "f"]
    if not names:
        raise UserError("the model has no output of real numbers")
    return float(np.mean([_divergence(name, found, reference) for name in names]))


def _divergence(name: str, found: Outputs, reference: Outputs) -> float:
    error = power = 0.0
    count = 0
    probable = all(_probabilities(outputs[name]) for outputs in reference)
    for ours, theirs in zip(found, reference, strict=True):
        y, expected = (array[name].astype(np.float64) for array in (ours, theirs))
        if not np.isfinite(y).all():
            return float("inf")
        if probable:
            y, expected = np.maximum(y, _TINY), np.maximum(expected, _TINY)
            error += float((expected * np.log(expected / y)).sum())
            count += expected.size // expected.shape[-1]
        else:
            error += float(np.square(y - expected).sum())
            power += float(np.square(expected).sum())
    return max(0.0, error / (count if probable else max(power, _TINY)))


def _probabilities(array: np.ndarray) -> bool:
    if array.ndim < 2 or array.shape[-1] < 2 or array.min(initial=0) < 0:
        return False
    return bool(np.allclose(array.sum(-1, dtype=np.float64), 1, atol=1e-3))


def _near(found: Outputs, reference: Outputs, calls: Outputs) -> float:
    return 1 - divergence(found, reference)


def _rows(outputs: Outputs) -> np.ndarray:
    """The first output of all calls as rows."""
    first = next(iter(outputs[0]))
    arrays = [np.atleast_1d(found[first]) for found in outputs]
    return np.concatenate([array.reshape(-1, array.shape[-1]) for array in arrays])


def _spearman(found: Outputs, reference: Outputs, calls: Outputs) -> float:
    from scipy.stats import spearmanr

    ours, theirs = (_cosines(_rows(outputs)) for outputs in (found, reference))
    if len(theirs) < 3:
        raise UserError("spearman needs 3 rows of output or more, to have pairs; these are few")
    return float(spearmanr(ours, theirs).statistic)


def _cosines(rows: np.ndarray) -> np.ndarray:
    """Of all pairs of rows."""
    rows = rows.astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)
    return (rows @ rows.T)[np.triu_indices(len(rows), 1)]


def _top1(found: Outputs, reference: Outputs, calls: Outputs) -> float:
    ours, theirs = (_rows(outputs).argmax(1) for outputs in (found, reference))
    return float(np.mean(ours == theirs))


_NAMED = {"divergence": _near, "spearman": _spearman, "top1": _top1}
