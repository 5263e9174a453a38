"""Post-training quantization (extra `lpgen[quantize]`; NumPy and SciPy do the work).

`quantize` makes of a float model of ONNX, a plan (`lpgen.plans`) and some data a model of standard
nodes. One algorithm in each file, on matrices of weights [n, k]; docs/quantization.md says which is
for what.
"""

from lpgen.quantize.calibration import Calibration
from lpgen.quantize.data import calls_of, inputs_of, read_calls
from lpgen.quantize.graph import write
from lpgen.quantize.kept import Kept
from lpgen.quantize.model import Outcome, Settings, quantize
from lpgen.quantize.simulation import simulated
from lpgen.quantize.usual import prepared, usual

__all__ = [
    "Calibration",
    "Kept",
    "Outcome",
    "Settings",
    "calls_of",
    "inputs_of",
    "prepared",
    "quantize",
    "read_calls",
    "simulated",
    "usual",
    "write",
]
