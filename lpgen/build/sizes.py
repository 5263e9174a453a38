"""The limit of buffers: generated code counts elements, and lpgen bytes of scratch, in int32.

TVM does not look: a stage of 2^32 elements is allocated with none, and the kernel crashes its
caller. The shapes that a schedule states are upper bounds, from which TVM's lowering cuts what a
stage needs at a time (CompactBufferAllocation); they are final when buffers become flat. An index
inside of its buffer then fits, too. On the way to it there may be larger values, such as the number
of a row that only fills a tile: they are bounded where a buffer is so large that it matters.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import tvm
from tvm import IRModule, tirx
from tvm.ir.expr import TensorLoad
from tvm.s_tir import SBlock
from tvm.sym import Analyzer
from tvm_ffi import structural_walk

from lpgen.build.passes import to_plain_code
from lpgen.errors import LpgenError, TooLarge
from lpgen.ops.words import MAX_ELEMENTS

if TYPE_CHECKING:
    from lpgen.algorithms.kernel import Kernel
    from lpgen.ops import Operator
    from lpgen.target import Target

_LARGE = MAX_ELEMENTS // 4
"""Elements of a buffer from which on indices are bounded. Padding does not quadruple anything."""


@contextlib.contextmanager
def scheduling(op: Operator) -> Iterator[None]:
    """Around the scheduling of an operator: TVM's failures on one of nearly 2^31 elements, whose
    tiles have more, are TooLarge."""
    try:
        yield
    except LpgenError:
        raise
    except Exception as error:
        shapes = {argument.name: argument.shape for argument in op.signature}
        shapes |= {"weights": op.w_shape} if op.signature.packed else {}
        name, shape = max(shapes.items(), key=lambda item: math.prod(item[1]))
        if (count := math.prod(shape)) <= _LARGE:
            raise
        raise TooLarge(
            f"buffer {name} has {count} elements {shape}, in whole tiles more than the limit "
            f"{MAX_ELEMENTS}"
        ) from error


def check(kernel: Kernel, target: Target) -> None:
    """Raise TooLarge, naming the buffer, where a scheduled kernel cannot be compiled for its size.

    Only where the shapes are large a part of the lowering is done to know them exactly.
    """
    for function in kernel.functions:
        _check_module(function.module, target)


def _check_module(module: IRModule, target: Target) -> None:
    func = module["main"]
    if _elements(func) <= _LARGE:
        return
    watch, tvm_target = _Watch(ends=True), target.tvm()
    # What TVM cannot count in int32 before it cuts, it does not lower either.
    with contextlib.suppress(Exception), tvm.transform.PassContext(3, instruments=[watch]):
        bound = tirx.transform.BindTarget(tvm_target.with_host(tvm_target))(module)
        to_plain_code()(bound)
    problem = watch.problem if watch.looked else _too_large(func)
    if problem is not None:
        raise TooLarge(problem)


@contextlib.contextmanager
def checked() -> Iterator[list[Any]]:
    """Instruments for a PassContext that lowers. Raises TooLarge at the end of the block."""
    watch = _Watch()
    try:
        yield [watch]
    except Exception:
        if watch.problem is None:
            raise
    if watch.problem is not None:
        raise TooLarge(watch.problem)


@tvm.ir.instrument.pass_instrument
class _Watch:
    """Looks at all functions when their buffers have their sizes, and are not flat yet.

    ends: the lowering is for this alone, and ends in an exception.
    """

    def __init__(self, ends: bool = False) -> None:
        self.ends, self.looked = ends, False
        self.problem: str | None = None

    def run_before_pass(self, mod: IRModule, info: Any) -> None:
        if info.name != "tirx.FlattenBuffer":
            return
        self.looked = True
        for func in mod.functions.values():
            self.problem = self.problem or _too_large(func)
        if self.ends or self.problem:
            raise RuntimeError("nothing more is wanted")


def _too_large(func: tirx.PrimFunc) -> str | None:
    """Which buffer has more elements than int32 counts, or as scratch memory more bytes, or is
    indexed through larger numbers; None: none."""
    given, scratch = _buffers(func)
    sizes = [(b, math.prod(_shape(b)), "elements") for b in given]
    sizes += [(b, math.prod(_shape(b)) * _bytes(b), "bytes") for b in scratch]
    for buffer, count, unit in sizes:
        if count > MAX_ELEMENTS:
            shape = "x".join(map(str, _shape(buffer)))
            return (
                f"buffer {buffer.name} has {count} {unit} ({buffer.dtype} {shape}), the limit is "
                f"{MAX_ELEMENTS}"
            )
    return _large_index(func) if _elements(func) > _LARGE else None


def _elements(func: tirx.PrimFunc) -> int:
    """Elements, or bytes, of the largest buffer."""
    given, scratch = _buffers(func)
    sizes = [*map(math.prod, map(_shape, given))]
    sizes += [math.prod(_shape(b)) * _bytes(b) for b in scratch]
    return max(sizes, default=0)


def _buffers(func: tirx.PrimFunc) -> tuple[list[tirx.Var], list[tirx.Var]]:
    """The buffers on memory that is given, and those that are allocated."""
    given = [p for p in func.params if hasattr(p, "shape")]  # others are pointers
    scratch: list[tirx.Var] = []
    structural_walk(func.body, (tirx.DeclBuffer, lambda view: given.append(view.buffer)))
    structural_walk(func.body, (tirx.AllocBuffer, lambda alloc: scratch.append(alloc.buffer)))
    structural_walk(func.body, (SBlock, lambda block: scratch.extend(block.alloc_buffers)))
    return given, scratch


def _shape(buffer: tirx.Var) -> tuple[int, ...]:
    return tuple(int(extent) for extent in buffer.shape)


def _bytes(buffer: tirx.Var) -> int:
    dtype = tvm.DataType(str(buffer.dtype))
    return dtype.bits * dtype.lanes // 8


def _large_index(func: tirx.PrimFunc) -> str | None:
    """Which buffer has an index with a part that may leave int32."""
    analyzer, places = Analyzer(), []
    loops: list[tirx.Var] = []

    def bind(loop: tirx.For) -> None:
        loops.append(loop.loop_var)
        analyzer.bind(loop.loop_var, tvm.ir.Range.from_min_extent(loop.min, loop.extent))

    def take(buffer: tirx.Var, indices: Iterable[tirx.Expr]) -> None:
        places.extend((buffer, part) for index in indices for part in _sums(index))

    structural_walk(func.body, (tirx.For, bind))
    structural_walk(func.body, (TensorLoad, lambda load: take(load.source, load.indices)))
    structural_walk(func.body, (tirx.BufferStore, lambda store: take(store.buffer, store.indices)))
    for buffer, part in places:
        bound = analyzer.const_int_bound(part)
        if -MAX_ELEMENTS <= bound.min_value and bound.max_value <= MAX_ELEMENTS:
            continue
        # Of what is read from memory nothing is known; it lies in a buffer's bounds.
        variables: list[tirx.Var] = []
        structural_walk(part, (tirx.Var, variables.append))
        if all(any(v.same_as(loop) for loop in loops) for v in variables):
            return (
                f"an index of buffer {buffer.name} reaches {bound.max_value}, the limit is "
                f"{MAX_ELEMENTS}"
            )
    return None


def _sums(index: tirx.Expr) -> list[tirx.Expr]:
    """The sums and products inside of an index."""
    found: list[tirx.Expr] = []
    structural_walk(index, (tirx.Add, found.append))
    structural_walk(index, (tirx.Mul, found.append))
    return found
