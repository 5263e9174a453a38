"""Operators: what is computed, in NumPy, apart from how it is run."""

from lpgen.ops.conv2d import Conv2d
from lpgen.ops.dense import Dense
from lpgen.ops.elementwise import DequantizeLinear, Elementwise, QuantizeLinear
from lpgen.ops.operator import Example, Operator
from lpgen.ops.product import Matrix, Product
from lpgen.ops.workload import formats_of_bits, parse, read_workloads, with_epilogue

__all__ = [
    "Conv2d",
    "Dense",
    "DequantizeLinear",
    "Elementwise",
    "Example",
    "Matrix",
    "Operator",
    "Product",
    "QuantizeLinear",
    "formats_of_bits",
    "parse",
    "read_workloads",
    "with_epilogue",
]
