"""A peer that needs no library, for tests of comparisons: NumPy's own answers, right and wrong."""

from functools import partial

from lpgen.bench.case import Contender, Unsupported


def version():
    return "1.0"


def variants(case, threads):
    if case.op.kind != "dense":
        raise Unsupported("no convolutions")
    return {
        "sums": partial(_contender, case, "s32", 0),
        "requantized": partial(_contender, case, "u8", 0),
        "float": partial(_contender, case, "f32", 0),
        "wrong": partial(_contender, case, "s32", 1),
        "narrow": _narrow,
        "broken": _broken,
    }


def _contender(case, out, error):
    right = {"s32": case.sums, "u8": case.requantized, "f32": case.real}[out]
    left = []

    def call():
        left[:] = [right + error]

    return Contender(call, lambda: left[0], out, "s8")


def _narrow():
    raise Unsupported("only 4 bits")


def _broken():
    raise RuntimeError("first line\nsecond line")
