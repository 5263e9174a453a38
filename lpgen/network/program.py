"""Program of a network: what its library holds beside the kernels, its constants among it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from lpgen.build.choice import Exported, Variant, identifier, targets_of
from lpgen.build.part import Part
from lpgen.errors import NetworkError
from lpgen.network import c_text
from lpgen.network.constants import Constants, constant, packed_weights
from lpgen.network.network import Network, Step
from lpgen.network.plan import Place, Plan, Where
from lpgen.ops.signature import Argument, Role
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    from lpgen.target import Target

SUFFIX = ".weights"
"""Of the file with the constants beside a library."""

MOST_INSIDE = 2**31 - 2**26
"""Bytes of constants in a library: code reaches data within 2 GiB."""


def suffixes(targets: Iterable[Target]) -> dict[str, str]:
    """The end of the name of the file with the constants for each target, by its name."""
    names = [target.name for target in targets]
    return {name: SUFFIX if len(names) == 1 else f".{name}{SUFFIX}" for name in names}


class _Packed(NamedTuple):
    """What differs between targets: where the arguments of each step are, and the constants."""

    target: str
    suffix: str
    operands: Sequence[Sequence[Place]]
    constants: Constants


@dataclass(frozen=True)
class Program:
    """A network on the kernels of a library, one for each operator, with a variant for each target.

    name: of its functions in C; beside: whether its constants lie in files of their own. Called
    with the kernels, it packs the weights and gives the part of the library. Raises NetworkError
    for weights that cannot be packed, and for more constants than a library takes.
    """

    network: Network
    plan: Plan
    name: str
    beside: bool = False

    def __call__(self, kernels: Sequence[Exported]) -> Part:
        by_name = {kernel.op.name: kernel for kernel in kernels}
        together, packed = Constants(), []
        for target, suffix in suffixes(targets_of(kernels)).items():
            constants = Constants() if self.beside else together
            variants = {n: kernel.variant_for(target) for n, kernel in by_name.items()}
            operands = [
                [
                    self._place(step, argument, variants[step.op.name], constants)
                    for argument in step.op.signature
                ]
                for step in self.network.steps
            ]
            packed.append(_Packed(target, suffix, operands, constants))
        if not self.beside and together.nbytes > MOST_INSIDE:
            raise NetworkError(
                f"{together.nbytes} bytes of constants are more than the {MOST_INSIDE} that a "
                "library takes; they can lie beside it (--weights-beside)"
            )
        inside = f"{self.name}.constants"
        symbols = [by_name[step.op.name].symbol for step in self.network.steps]
        files = {p.target: p.suffix for p in packed} if self.beside else {}
        total = sum(p.constants.nbytes for p in packed) if self.beside else together.nbytes
        return Part(
            source=self._source(packed, symbols, inside),
            header=c_text.header(self.name, self.network, self.plan, total, files),
            manifest={"network": self._manifest(packed)},
            exports=(f"{self.name}_*",),
            files={} if self.beside else {inside: together.write},
            beside={p.suffix: p.constants.write_beside for p in packed} if self.beside else {},
        )

    def _source(self, packed: Sequence[_Packed], symbols: Sequence[str], inside: str) -> str:
        """The C text: constants, the steps for each target, the network."""
        name, text, rows = self.name, "", []
        for program in packed:
            own = f"{name}_{identifier(program.target)}"
            where = f".beside = &{own}_beside" if self.beside else f".constants = {name}_bytes"
            text += c_text.beside(own, program.constants) if self.beside else ""
            text += c_text.steps(own, symbols, program.operands)
            rows.append(
                f".steps = {own}_steps, {where}, .constant_bytes = {program.constants.nbytes}"
            )
        text += c_text.table(name, self.network, self.plan, rows)
        if self.beside:
            return f"{text}\nLPGEN_WEIGHTS({name}, &{name}_network)"
        return f"{c_text.inside(name, inside)}{text}"

    def _place(
        self, step: Step, argument: Argument, variant: Variant, constants: Constants
    ) -> Place:
        """Where a step finds an argument; what is always the same becomes a constant."""
        name = argument.name
        if argument.role == Role.OUTPUT:
            return self.plan.places[step.output]
        if argument.role == Role.PACKED:
            return Place(Where.CONSTANT, constants.place(packed_weights(step, variant)))
        if name in step.inputs:
            return self.plan.places[step.inputs[name]]
        if argument.role == Role.SCALAR:
            return Place(Where.NUMBER, int(step.constants[name]))
        return Place(Where.CONSTANT, constants.place(constant(step, argument)))

    def _manifest(self, packed: Sequence[_Packed]) -> dict[str, Any]:
        plan, network = self.plan, self.network
        return {
            "name": self.name,
            "inputs": [_entry(n, kind) for n, kind in network.inputs.items()],
            "outputs": [_entry(n, kind) for n, kind in network.outputs.items()],
            "tensors": [
                _entry(n, kind) | {"where": str(plan.places[n].where), "at": plan.places[n].at}
                for n, kind in network.tensors.items()
            ],
            "steps": [
                _step_entry(step, places)
                for step, places in zip(network.steps, packed[0].operands, strict=True)
            ],
            "arena": {
                "tensor_bytes": plan.arena_bytes,
                "lower_bound": plan.lower_bound,
                "sum_bytes": plan.sum_bytes,
            },
            "programs": {
                p.target: {
                    "constants": [*map(_constants, network.steps, p.operands)],
                    "constant_bytes": p.constants.nbytes,
                    "weights_file": p.suffix if self.beside else "",
                }
                for p in packed
            },
        }


def _entry(name: str, kind: TensorType) -> dict[str, Any]:
    return {"name": name, "shape": list(kind.shape), "dtype": kind.dtype}


def _step_entry(step: Step, places: Sequence[Place]) -> dict[str, Any]:
    return {
        "name": step.name,
        "workload": step.op.name,
        "inputs": dict(step.inputs),
        "output": step.output,
        "numbers": _at(Where.NUMBER, step, places),
        "sources": list(step.sources),
    }


def _constants(step: Step, places: Sequence[Place]) -> dict[str, int]:
    return _at(Where.CONSTANT, step, places)


def _at(where: Where, step: Step, places: Sequence[Place]) -> dict[str, int]:
    """The arguments of a step that are in such a place, and where there."""
    named = zip(step.op.signature, places, strict=True)
    return {argument.name: place.at for argument, place in named if place.where == where}
