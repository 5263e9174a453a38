"""Choice of a kernel for a library, and what of it the library holds."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any

from lpgen.ops.signature import Signature

if TYPE_CHECKING:
    from tvm import IRModule

    from lpgen.algorithms.kernel import Kernel
    from lpgen.build.stack import Scratch
    from lpgen.ops import Operator
    from lpgen.target import Target

PACKED_HEADER = 64
"""Bytes of the header of packed weights (packed.c), behind which the layout's data are."""


@dataclass(frozen=True)
class Choice:
    """One kernel of a library: the operator, the target, and what was chosen for them.

    seconds: the time of one call as it was tuned, None where nobody measured it for this target;
    threads: on how many; borrowed: the knobs are those of the operator's record without its
    epilogue; lender: the name of the other target whose record they are; cycles: of a call where
    they are those of a record that was only modelled.
    """

    op: Operator
    target: Target
    template: str
    knobs: Mapping[str, Any]
    kernel: Kernel
    seconds: float | None = None
    borrowed: bool = False
    lender: str | None = None
    threads: int = 1
    cycles: float | None = None

    @property
    def work(self) -> float:
        """Seconds that a call takes on one thread, about: a kernel too small stays on one.

        As tuned; else at the usual speed of products on vectors, and of reading from a cache. With
        the most rows and layers, where a call says how many.
        """
        if self.seconds is not None and not self.op.signature.scalars:
            return self.seconds * self.threads
        op = self.op
        speed = _PLAIN_OPS if self.template.endswith("/generic") else _VECTOR_OPS
        touched = sum(argument.nbytes for argument in self.kernel.signature)
        return max(op.ops / speed, touched / _READ_BYTES)

    @property
    def least_work(self) -> float:
        """The same with the fewest rows, where a call says how many: in proportion, but that few
        rows take as long as `_FEW`."""
        rows = self.op.signature.rows
        if rows is None:
            return self.work
        low, high = rows.limits[:2]
        return self.work * min(1.0, max(low, _FEW) / high)

    @property
    def origin(self) -> str:
        """Where the knobs come from: "tuned", "as s32" (tuned without the epilogue), "record of
        TARGET", "record of TARGET as s32", "modelled" (by the static model), or "model"."""
        if self.cycles is not None:
            return "modelled"
        words = [f"record of {self.lender}"] if self.lender else []
        words += ["as s32"] if self.borrowed else []
        return " ".join(words) or ("model" if self.seconds is None else "tuned")


_FEW = 4
_VECTOR_OPS = 1e11
_PLAIN_OPS = 5e9
_READ_BYTES = 2e10
"""Operations and bytes a second on one thread, where nobody measured."""


@dataclass(frozen=True)
class Variant:
    """Code for a choice: the identity of its packed weights, the scratch memory of its two
    functions (no packer, no memory), and into how many pieces its work can be shared."""

    choice: Choice
    identity: int
    scratch: Scratch
    pack_scratch: Scratch | None
    pieces: int

    @property
    def symbol(self) -> str:
        """Its C name inside of the library."""
        return variant_symbol(self.choice)


@dataclass(frozen=True)
class Exported:
    """A kernel as a library exports it: the variants for one workload, best first.

    Its functions take the first variant that the CPU runs. All variants take packed weights of one
    size, that of the largest.
    """

    variants: tuple[Variant, ...]

    @property
    def op(self) -> Operator:
        """What it computes."""
        return self.variants[0].choice.op

    def variant_for(self, target: str) -> Variant:
        """The variant for the target of that name."""
        return next(v for v in self.variants if v.choice.target.name == target)

    @property
    def symbol(self) -> str:
        """The plain C name."""
        return symbol_of(self.op)

    @cached_property
    def signature(self) -> Signature:
        """The arguments of its public function; packed weights with their header."""
        return self.op.signature.sized(self._packed_bytes)

    @cached_property
    def packing(self) -> Signature | None:
        """The arguments of its public packer, where there are weights."""
        if self.op.signature.packed is None:
            return None
        return self.op.packing(self._packed_bytes)

    @property
    def _packed_bytes(self) -> int:
        return PACKED_HEADER + max(v.choice.kernel.packed_bytes for v in self.variants)

    @property
    def workspace(self) -> tuple[int, int]:
        """(once, for each thread): bytes of workspace that are enough for every variant."""
        scratches = [variant.scratch for variant in self.variants]
        return max(s.serial for s in scratches), max(s.per_thread for s in scratches)


def exported(variants: Sequence[Variant]) -> list[Exported]:
    """The variants by their workloads, in the order in which these first come."""
    found: dict[str, list[Variant]] = {}
    for variant in variants:
        found.setdefault(variant.choice.op.name, []).append(variant)
    return [Exported(tuple(several)) for several in found.values()]


def targets_of(kernels: Sequence[Exported]) -> list[Target]:
    """The targets of a library, each once, in the order in which kernels prefer them."""
    found = {v.choice.target.name: v.choice.target for kernel in kernels for v in kernel.variants}
    return list(found.values())


def symbol_of(op: Operator) -> str:
    """The C name of the kernel for `op`: readable, and a hash of the canonical workload.

    The same in every library, whatever the targets of the kernel are:
    lpgen_conv2d_3x3_64x56x56_64_u8s8_123456.
    """
    return f"lpgen_{op.identifier}_{hashlib.sha256(op.name.encode()).hexdigest()[:6]}"


def variant_symbol(choice: Choice) -> str:
    """The C name of a variant, internal to the library: the kernel's, and the target."""
    return f"{symbol_of(choice.op)}_{identifier(choice.target.name)}"


def run_symbols(choice: Choice) -> list[str]:
    """The generated functions of a choice's variant: one, or one for each body."""
    names = [f"run_{variant_symbol(choice)}"]
    count = len(choice.kernel.functions)
    return names if count == 1 else [f"{names[0]}_{number}" for number in range(count)]


def pack_symbol(variant: str) -> str:
    """The generated packer of a variant."""
    return f"pack_{variant}"


def identifier(text: str) -> str:
    """The text with an underscore for every character that C has not in names."""
    return re.sub(r"[^A-Za-z0-9]", "_", text)


def identity(choice: Choice, packer: IRModule | None) -> int:
    """A number of 64 bits that the packed weights of this choice carry and those of others do not.

    packer: what packs them, None: nothing does. With it and the versions, all that decides what
    their bytes mean. The level of the CPU stands beside it in their header.
    """
    text = packer.script() if packer else ""
    of = [choice.op.name, choice.template, dict(choice.knobs), versions(), text]
    text = json.dumps(of, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def versions() -> dict[str, str]:
    """Versions of what makes kernels."""
    return {"lpgen": metadata.version("lpgen"), "tvm": metadata.version("apache-tvm")}
