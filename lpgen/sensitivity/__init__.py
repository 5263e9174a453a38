"""Sensitivity: how the outputs of a model degrade when one group of layers is changed.

`sensitivity` measures variants (fewer bits, bit layers, bit errors, noise) after post-training
quantization, with all other layers float; the table is what plans are chosen by.
"""

from lpgen.sensitivity.journal import Journal, digest
from lpgen.sensitivity.measure import sensitivity
from lpgen.sensitivity.metrics import Metric, metric_of
from lpgen.sensitivity.table import Result, Row, Table, read_table
from lpgen.sensitivity.variants import Amounts, Variant, parts_of

__all__ = [
    "Amounts",
    "Journal",
    "Metric",
    "Result",
    "Row",
    "Table",
    "Variant",
    "digest",
    "metric_of",
    "parts_of",
    "read_table",
    "sensitivity",
]
