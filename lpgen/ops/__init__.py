"""Operators: what is computed, in NumPy, apart from how it is run."""

from lpgen.ops.base import Matrix, Operator
from lpgen.ops.conv2d import Conv2d
from lpgen.ops.dense import Dense
from lpgen.ops.quantize import DequantizeLinear, Elementwise, QuantizeLinear
from lpgen.ops.workload import formats_of_bits, parse, read_workloads, with_epilogue

__all__ = [
    "Conv2d",
    "Dense",
    "DequantizeLinear",
    "Elementwise",
    "Matrix",
    "Operator",
    "QuantizeLinear",
    "formats_of_bits",
    "parse",
    "read_workloads",
    "with_epilogue",
]
