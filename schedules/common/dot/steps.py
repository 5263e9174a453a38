"""The instructions that the dot algorithm's products can take: exact ones alone."""

from lpgen.algorithms.dot import Operands, byte_operands, crossing_of, word_operands
from lpgen.algorithms.lhs.k_split import cut
from lpgen.isa import Isa
from lpgen.ops import Conv2d, Dense
from lpgen.ops.reach import INT16_MAX


def operands_of(op: Dense | Conv2d, isa: Isa, step: str) -> Operands:
    """What the two sides become for the step."""
    return word_operands(op) if step == "words" else byte_operands(op, isa.signs)


def steps(op: Dense | Conv2d, isa: Isa) -> tuple[str, ...]:
    """The steps that are exact for the operator's formats.

    vpmaddubsw saturates: the sum of two products, 2 * max|left| * max|right|, has to fit int16, and
    N steps summed in int16 need N times that. NEON (kq=2) and RISC-V (kq=1) add products one by
    one: any is exact.
    """
    if isa.has_dot4:
        return ("bytes",)
    operands = byte_operands(op, isa.signs)
    most = INT16_MAX // (max(1, isa.kq // 2) * operands.left_max * operands.right_max)
    if most == 0:
        return {4: ("words",), 2: ("bytes", "words"), 1: ("bytes",)}[isa.kq]
    kg = cut(op, isa.kq).kg
    chunks = {2**i for i in range(1, 13) if 2**i <= min(most, kg)}
    if most >= 2 and kg >= 2:
        chunks.add(-(-kg // -(-kg // most)))
    # Where int16 holds one product alone, multiplying int16 takes no more instructions.
    words = ("words",) if most == 1 and isa.kq == 2 else ()
    return ("bytes", *words, *(f"pairs{chunk}" for chunk in sorted(chunks)[-2:]))


def crossed(op: Dense | Conv2d, isa: Isa) -> tuple[str, ...]:
    """The step of products of sums, where it is exact and may pay: of panels that become bytes."""
    if not (isa.crosses and unpacked(op, "bytes")):
        return ()
    return ("crossed",) if crossing_of(op, byte_operands(op, isa.signs)) else ()


def chunk_of(step: str) -> int:
    """N of pairsN, 0 for the other steps."""
    return int(step.removeprefix("pairs")) if step.startswith("pairs") else 0


def unpacked(op: Dense | Conv2d, step: str) -> bool:
    """Whether stored weights differ from operands."""
    return op.weight.bits < 8 or step == "words"
