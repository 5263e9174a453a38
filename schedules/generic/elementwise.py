"""Plain vector loops over the elements: quantize and dequantize for any CPU.

No family has more to gain: memory limits them, and LLVM has the instructions for the rest.
"""

from lpgen.algorithms import elementwise
from lpgen.algorithms.kernel import Kernel
from lpgen.ops import Elementwise
from lpgen.schedules.common.finish import finished
from lpgen.space import Knobs, Space
from lpgen.target import Target

SERVES = ("quantize", "dequantize")

# Elements that a thread takes at a time, and those from which several threads are asked.
_CHUNK = 4096
_PARALLEL = 2**16


def why_not(op: Elementwise, target: Target) -> str | None:
    """None: the template serves every one."""
    return None


def space(op: Elementwise, target: Target) -> Space:
    """lanes: elements of a step."""
    columns = elementwise.View.of(op).columns
    return Space({"lanes": tuple(n for n in (8, 16, 32, 64) if n < 2 * columns) or (4,)})


def default(op: Elementwise, target: Target) -> Knobs:
    """Knobs for an operator that nobody has tuned."""
    return {"lanes": max(n for n in space(op, target).knobs["lanes"] if n <= 32)}


def kernel(op: Elementwise, target: Target, knobs: Knobs) -> Kernel:
    """The scheduled kernel."""
    definition = elementwise.define(op)
    sch = definition.schedule()
    row, column = sch.get_loops(sch.get_sblock("y"))
    lanes = knobs["lanes"]
    vectors = min(_CHUNK, -(-sch.get(column).extent // lanes) * lanes) // lanes
    chunk, _, lane = sch.split(column, [None, vectors, lanes])
    outer = sch.fuse(row, chunk)
    if op.macs >= _PARALLEL:
        sch.parallel(outer)
    sch.vectorize(lane)
    return finished(sch.mod["main"], definition)
