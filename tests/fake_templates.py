"""Templates for the tests of the search: small dense kernels, and every way to misbehave."""

import os
import signal
import time
from dataclasses import dataclass

import numpy as np

from lpgen.algorithms.kernel import Kernel
from lpgen.errors import ScheduleRefused
from lpgen.space import Space
from lpgen.templates import Template


@dataclass(frozen=True)
class PlainLayout:
    """Weights as they are, one byte each; `bias` is what a wrong packing adds."""

    shape: tuple[int, int]
    bias: int = 0

    @property
    def nbytes(self) -> int:
        return self.shape[0] * self.shape[1]

    def pack(self, w: np.ndarray) -> np.ndarray:
        return (w + self.bias).astype(np.int8).view(np.uint8).ravel()


def dense_kernel(op, tile: int = 1, extra: int = 0, packing_bias: int = 0) -> Kernel:
    """y = x w^T + extra, `tile` columns at a time."""
    from tvm import s_tir, te

    m, n, k = op.m, op.n, op.k
    x = te.placeholder((m, k), op.act.dtype, "x")
    packed = te.placeholder((n * k,), "uint8", "packed")
    r = te.reduce_axis((0, k), "r")

    def element(i, j):
        weight = packed[j * k + r].astype(op.weight.dtype).astype("int32")
        return te.sum(x[i, r].astype("int32") * weight, axis=r)

    sums = te.compute((m, n), element, "sums")
    y = te.compute((m, n), lambda i, j: sums[i, j] + extra, "y")
    sch = s_tir.Schedule(te.create_prim_func([x, packed, y]))
    block = sch.get_sblock("y")
    outer, _ = sch.split(sch.get_loops(block)[1], [None, tile])
    sch.compute_at(sch.get_sblock("sums"), outer)
    return Kernel(op, sch.mod, PlainLayout(op.w_shape, packing_bias))


class Uncounted(Template):
    """A template that the cost model knows nothing of."""

    counted = False


@dataclass(frozen=True)
class Tiles(Uncounted):
    """Works; a space of tile sizes and two knobs that change nothing."""

    family: str = "fake"
    algorithm: str = "tiles"
    serves = ("dense", "conv2d")

    def why_not(self, op, target):
        return None if op.kind == "dense" else "serves dense only"

    def space(self, op, target):
        tiles = (1, 2, 4, 8, 16, 32)
        knobs = {"tile": tiles, "order": ("mn", "nm"), "copy": (False, True)}
        return Space(knobs, lambda p: op.n % p["tile"] == 0)

    def default(self, op, target):
        return {"tile": 1, "order": "mn", "copy": False}

    def kernel(self, op, target, knobs):
        return dense_kernel(op, knobs["tile"])


def _crash(op):
    os.kill(os.getpid(), signal.SIGSEGV)


def _abort(op):
    os.write(2, b"LLVM ERROR: Cannot select: intrinsic %llvm.x86.nothing\n")
    os.abort()


def _hang(op):
    time.sleep(1000)


def _refuse(op):
    raise ScheduleRefused("tile=3 does not divide n=16")


def _fail(op):
    raise ZeroDivisionError("Traceback\n  somewhere\n\nthe real reason")


def calling(function: str):
    """A kernel that calls a function of C, such as abort, when it runs."""

    def kernel(op) -> Kernel:
        from tvm import te, tirx

        x = te.placeholder((op.m, op.k), op.act.dtype, "x")
        packed = te.placeholder((op.n * op.k,), "uint8", "packed")
        call = tirx.call_extern("int32", function)
        y = te.extern(
            (op.m, op.n), [x, packed], lambda i, o: tirx.Evaluate(call), dtype="int32", name="y"
        )
        from tvm import s_tir

        return Kernel(
            op, s_tir.Schedule(te.create_prim_func([x, packed, y])).mod, PlainLayout(op.w_shape)
        )

    return kernel


RUNNING = {"good": dense_kernel, "dies": calling("abort"), "waits": calling("pause")}
"""What a kernel may do where it runs."""

BEHAVIOURS = {
    "good": dense_kernel,
    "crash": _crash,
    "abort": _abort,
    "hang": _hang,
    "refuse": _refuse,
    "fail": _fail,
    "wrong": lambda op: dense_kernel(op, extra=1),
    "wrong_packing": lambda op: dense_kernel(op, packing_bias=1),
}


@dataclass(frozen=True)
class Moody(Uncounted):
    """One knob that says how to behave; `moods` are its choices, the first the default."""

    family: str = "fake"
    algorithm: str = "moody"
    moods: tuple[str, ...] = tuple(BEHAVIOURS)

    def why_not(self, op, target):
        return None

    def space(self, op, target):
        return Space({"mood": self.moods})

    def default(self, op, target):
        return {"mood": self.moods[0]}

    def kernel(self, op, target, knobs):
        return (BEHAVIOURS | RUNNING)[knobs["mood"]](op)
