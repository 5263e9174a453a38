"""Program of a network: what its library holds beside the kernels, its constants among it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lpgen.build.choice import Exported
from lpgen.build.part import Part
from lpgen.errors import NetworkError
from lpgen.network import c_text
from lpgen.network.constants import Constants, constant, packed_weights
from lpgen.network.network import Network, Step
from lpgen.network.plan import Place, Plan, Where
from lpgen.ops.signature import Argument, Role
from lpgen.ops.tensor_type import TensorType

SUFFIX = ".weights"
"""Of the file with the constants beside a library."""

MOST_INSIDE = 2**31 - 2**26
"""Bytes of constants in a library: code reaches data within 2 GiB."""


@dataclass(frozen=True)
class Program:
    """A network on the kernels of a library, one for each operator.

    name: of its functions in C; beside: whether its constants lie in a file of their own. Called
    with the kernels, it packs the weights and gives the part of the library. Raises NetworkError
    for weights that cannot be packed, and for more constants than a library takes.
    """

    network: Network
    plan: Plan
    name: str
    beside: bool = False

    def __call__(self, kernels: Sequence[Exported]) -> Part:
        by_name = {kernel.op.name: kernel for kernel in kernels}
        constants = Constants()
        operands = [
            [self._place(step, a, by_name[step.op.name], constants) for a in step.op.signature]
            for step in self.network.steps
        ]
        if not self.beside and constants.nbytes > MOST_INSIDE:
            raise NetworkError(
                f"{constants.nbytes} bytes of constants are more than the {MOST_INSIDE} that a "
                "library takes; they can lie beside it (--weights-beside)"
            )
        inside = f"{self.name}.constants"
        symbols = [by_name[step.op.name].symbol for step in self.network.steps]
        source = c_text.table(self.name, self.network, self.plan, symbols, operands)
        if self.beside:
            source = f"{c_text.beside(self.name, constants)}{source}"
            source += f"\nLPGEN_WEIGHTS({self.name}, &{self.name}_network)"
        else:
            source = f"{c_text.inside(self.name, constants, inside)}{source}"
        file = SUFFIX if self.beside else ""
        return Part(
            source=source,
            header=c_text.header(self.name, self.network, self.plan, constants, file),
            manifest={"network": self._manifest(operands, constants)},
            exports=(f"{self.name}_*",),
            files={} if self.beside else {inside: constants.write},
            beside={SUFFIX: constants.write_beside} if self.beside else {},
        )

    def _place(
        self, step: Step, argument: Argument, kernel: Exported, constants: Constants
    ) -> Place:
        """Where a step finds an argument; what is always the same becomes a constant."""
        name = argument.name
        if argument.role == Role.OUTPUT:
            return self.plan.places[step.output]
        if argument.role == Role.PACKED:
            (variant,) = kernel.variants
            return Place(Where.CONSTANT, constants.place(packed_weights(step, variant)))
        if name in step.inputs:
            return self.plan.places[step.inputs[name]]
        if argument.role == Role.SCALAR:
            return Place(Where.NUMBER, int(step.constants[name]))
        return Place(Where.CONSTANT, constants.place(constant(step, argument)))

    def _manifest(
        self, operands: Sequence[Sequence[Place]], constants: Constants
    ) -> dict[str, Any]:
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
                for step, places in zip(network.steps, operands, strict=True)
            ],
            "arena": {
                "tensor_bytes": plan.arena_bytes,
                "lower_bound": plan.lower_bound,
                "sum_bytes": plan.sum_bytes,
            },
            "constant_bytes": constants.nbytes,
            "weights_file": SUFFIX if self.beside else "",
        }


def _entry(name: str, kind: TensorType) -> dict[str, Any]:
    return {"name": name, "shape": list(kind.shape), "dtype": kind.dtype}


def _step_entry(step: Step, places: Sequence[Place]) -> dict[str, Any]:
    named = {a.name: place for a, place in zip(step.op.signature, places, strict=True)}
    return {
        "name": step.name,
        "workload": step.op.name,
        "inputs": dict(step.inputs),
        "output": step.output,
        "constants": {n: place.at for n, place in named.items() if place.where == Where.CONSTANT},
        "numbers": {n: place.at for n, place in named.items() if place.where == Where.NUMBER},
        "sources": list(step.sources),
    }
