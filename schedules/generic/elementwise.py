"""Plain vector loops over the elements, for any CPU.

No family has more to gain: memory limits them, and LLVM has the instructions for the rest.
"""

from tvm import IRModule, te
from tvm.s_tir import Schedule

from lpgen.algorithms import elementwise
from lpgen.algorithms.kernel import Kernel
from lpgen.ops import Operator
from lpgen.space import Knobs, Space
from lpgen.target import Target
from lpgen.tir.tails import peel_partial_vectors

SERVES = tuple(elementwise.DEFINITIONS)

# Elements that a thread takes at a time, and those from which several threads are asked.
_CHUNK = 4096
_PARALLEL = 2**16


def why_not(op: Operator, target: Target) -> str | None:
    """None: the template serves every one."""
    return None


def space(op: Operator, target: Target) -> Space:
    """lanes: elements of a step."""
    *_, y = elementwise.define(op)
    columns = int(y.shape[1])
    return Space({"lanes": tuple(n for n in (8, 16, 32, 64) if n < 2 * columns) or (4,)})


def default(op: Operator, target: Target) -> Knobs:
    """Knobs for an operator that nobody has tuned."""
    return {"lanes": max(n for n in space(op, target).knobs["lanes"] if n <= 32)}


def kernel(op: Operator, target: Target, knobs: Knobs) -> Kernel:
    """The scheduled kernel."""
    tensors = elementwise.define(op, fused=target.has_fma)
    sch = Schedule(IRModule({"main": te.create_prim_func(tensors)}))
    row, column = sch.get_loops(sch.get_sblock("y"))
    rows, columns = (int(sch.get(loop).extent) for loop in (row, column))
    lanes = knobs["lanes"]
    vectors = min(_CHUNK, -(-columns // lanes) * lanes) // lanes
    chunk, _, lane = sch.split(column, [None, vectors, lanes])
    outer = sch.fuse(row, chunk)
    if rows * columns >= _PARALLEL:
        sch.parallel(outer)
    sch.vectorize(lane)
    return Kernel(op, elementwise.entry(peel_partial_vectors(sch.mod["main"]), op), None)
