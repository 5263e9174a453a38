"""The compute peak of an Arm vector instruction set: its products of bytes on registers only."""

from functools import partial

from tvm import tirx
from tvm.tirx.script import builder as tb

from lpgen.isa import Peak
from lpgen.schedules.arm.isa import Neon, isa_of
from lpgen.space import Knobs
from lpgen.target import Target
from lpgen.tir import vectors as vec

_STEPS = 4000


def peak(target: Target, knobs: Knobs) -> Peak | None:
    """The loop that bounds a dot kernel with these knobs; None where there are no such vectors.

    sdot where there is one. Else smull and sadalp; for kernels that sum in int16 (step=pairsN), and
    for those of int16 (step=words), smlal.
    """
    isa = isa_of(target)
    if isa is None:
        return None
    step = str(knobs.get("step", ""))
    if isa.has_dot4:
        names, products, add = "sdot 16b", 16, _dot
    elif step.startswith("pairs"):
        names, products, add = "smlal 8h", 8, _add_each
    elif step == "words":
        names, products, add = "smlal 4s", 4, _add_words
    else:
        names, products, add = "smull 8h + sadalp 4s", 8, _add_twos
    # Enough independent chains to hide the latency, and registers left for everything else.
    chains = isa.registers * 5 // 8
    return Peak.of(
        names, 2 * products * chains * _STEPS, chains * isa.lanes, partial(_loop, isa, chains, add)
    )


def _loop(isa: Neon, chains: int, add, x, packed, y) -> None:
    lanes = isa.lanes
    total = vec.scratch((chains * lanes,), "int32")
    right = vec.bind(vec.reinterpret("int8x16", vec.load(packed, [0], 16)))
    first = vec.bind(vec.reinterpret(f"int32x{lanes}", vec.load(x, [0], 16)))
    for i in range(chains):
        vec.store(total, [i * lanes], first, lanes)
    with tb.serial(0, _STEPS):
        for i in range(chains):
            # The left operand is the sum so far: a product that stays would leave the loop.
            acc = vec.bind(vec.load(total, [i * lanes], lanes))
            vec.store(total, [i * lanes], add(isa, acc, right), lanes)
    for i in range(chains):
        vec.store(y, [i * lanes], vec.load(total, [i * lanes], lanes), lanes)


def _dot(isa: Neon, acc, right) -> tirx.Expr:
    return isa.dot4(acc, vec.reinterpret("int8x16", acc), right)


def _add_twos(isa: Neon, acc, right) -> tirx.Expr:
    return isa.add_twos(acc, *(_low(vec.reinterpret("int8x16", v), 8) for v in (acc, right)))


def _add_each(isa: Neon, acc, right) -> tirx.Expr:
    halves = vec.bind(vec.reinterpret("int16x8", acc))
    products = (_low(vec.reinterpret("int8x16", v), 8) for v in (acc, right))
    return vec.reinterpret(f"int32x{isa.lanes}", isa.add_each(halves, *products))


def _add_words(isa: Neon, acc, right) -> tirx.Expr:
    return isa.dot1(acc, *(_low(vec.reinterpret("int16x8", v), 4) for v in (acc, right)))


def _low(vector, lanes: int) -> tirx.Var:
    """The first lanes of a vector."""
    return vec.bind(vec.shuffle(vec.bind(vector), range(lanes)))
