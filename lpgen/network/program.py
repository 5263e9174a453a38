"""Program of a network: what its library holds beside the kernels, its constants among it.

A network may have several versions, each for other sizes of its inputs, which share constants.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lpgen.build.choice import Exported, Variant, identifier, targets_of
from lpgen.build.part import Part
from lpgen.errors import NetworkError
from lpgen.network import c_text, protection
from lpgen.network.constants import Constants, constant
from lpgen.network.network import Network, Step
from lpgen.network.plan import Place, Plan, Where, plan
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


class Version(NamedTuple):
    """A network for some sizes of its inputs, and where its tensors lie."""

    network: Network
    plan: Plan


class _Packed(NamedTuple):
    """What differs between targets: where the arguments of each step of each version are, and the
    constants."""

    target: str
    suffix: str
    operands: Sequence[Sequence[Sequence[Place]]]
    constants: Constants


@dataclass(frozen=True)
class Program:
    """A network on the kernels of a library, one for each operator, with a variant for each target.

    versions: of the network, for different sizes; name: of its functions in C, those of other
    versions than the first begin with NAME_1, NAME_2, ...; beside: whether its constants lie in
    files of their own; exposed: where these may have bit errors, the nodes whose codes of weights
    mind them so little that they go without check bytes (`protection`), None: nothing has any.
    Called with the kernels, it packs the weights and gives the part of the library. Raises
    NetworkError for weights that cannot be packed, and for more constants than a library takes.
    """

    versions: Sequence[Version]
    name: str
    beside: bool = False
    exposed: Collection[str] | None = None

    @classmethod
    def of(
        cls,
        networks: Iterable[Network],
        name: str,
        beside: bool = False,
        exposed: Collection[str] | None = None,
    ) -> Program:
        """The program of the versions of a network."""
        versions = [Version(network, plan(network)) for network in networks]
        return cls(versions, name, beside, exposed)

    def __call__(self, kernels: Sequence[Exported]) -> Part:
        by_name = {kernel.op.name: kernel for kernel in kernels}
        together, packed = Constants(), []
        for target, suffix in suffixes(targets_of(kernels)).items():
            constants = Constants() if self.beside else together
            variants = {n: kernel.variant_for(target) for n, kernel in by_name.items()}
            operands = [
                [
                    [
                        _place(version.plan, step, argument, variants[step.op.name], constants)
                        for argument in step.op.signature
                    ]
                    for step in version.network.steps
                ]
                for version in self.versions
            ]
            packed.append(_Packed(target, suffix, operands, constants))
        if not self.beside and together.nbytes > MOST_INSIDE:
            raise NetworkError(
                f"{together.nbytes} bytes of constants are more than the {MOST_INSIDE} that a "
                "library takes; they can lie beside it (--weights-beside)"
            )
        inside = f"{self.name}.constants"
        symbols = {name: kernel.symbol for name, kernel in by_name.items()}
        files = {p.target: p.suffix for p in packed} if self.beside else {}
        total = sum(p.constants.nbytes for p in packed) if self.beside else together.nbytes
        return Part(
            source=self._source(packed, symbols, inside),
            header="".join(
                c_text.header(self._prefix(place), *version, total, {} if place else files)
                for place, version in enumerate(self.versions)
            ),
            manifest=self._manifest(packed),
            exports=(f"{self.name}_*",),
            files={} if self.beside else {inside: together.write},
            beside=self._beside(packed, by_name) if self.beside else {},
        )

    def _beside(
        self, packed: Sequence[_Packed], by_name: Mapping[str, Exported]
    ) -> dict[str, Callable[[Path], None]]:
        """What writes the files beside the library, by suffix."""
        found: dict[str, Callable[[Path], None]] = {}
        for p in packed:
            found[p.suffix] = p.constants.write_beside
            if self.exposed is not None:
                variants = {n: kernel.variant_for(p.target) for n, kernel in by_name.items()}
                steps = [step for version in self.versions for step in version.network.steps]
                operands = [places for of_version in p.operands for places in of_version]
                bare = protection.bare(steps, operands, variants, self.exposed)
                write = partial(protection.write, constants=p.constants, bare=bare)
                found[p.suffix + protection.SUFFIX] = write
        return found

    @property
    def _checked(self) -> bool:
        return self.beside and self.exposed is not None

    def _prefix(self, place: int) -> str:
        """What the C functions of a version begin with."""
        return f"{self.name}_{place}" if place else self.name

    def _source(self, packed: Sequence[_Packed], symbols: Mapping[str, str], inside: str) -> str:
        """The C text: constants, and for each version the steps for each target and the network."""
        name, text = self.name, "" if self.beside else c_text.inside(self.name, inside)
        targets = {program.target: identifier(program.target) for program in packed}
        if self.beside:
            for program in packed:
                text += c_text.beside(f"{name}_{targets[program.target]}", program.constants)
        for place, version in enumerate(self.versions):
            kernels = [symbols[step.op.name] for step in version.network.steps]
            rows = []
            for program in packed:
                target = targets[program.target]
                own = f"{self._prefix(place)}_{target}"
                text += c_text.steps(own, kernels, program.operands[place])
                where = f".beside = &{name}_{target}_beside"
                where = where if self.beside else f".constants = {name}_bytes"
                size = program.constants.nbytes
                rows.append(f".steps = {own}_steps, {where}, .constant_bytes = {size}")
            text += c_text.table(self._prefix(place), *version, rows)
        return f"{text}\nLPGEN_WEIGHTS({name}, &{name}_network)" if self.beside else text

    def _manifest(self, packed: Sequence[_Packed]) -> dict[str, Any]:
        """The entries: "network" is the first version, "versions" are the others, if any."""
        first, *others = (self._entry_of(packed, place) for place in range(len(self.versions)))
        return {"network": first} | ({"versions": others} if others else {})

    def _entry_of(self, packed: Sequence[_Packed], place: int) -> dict[str, Any]:
        network, planned = self.versions[place]
        return {
            "name": self._prefix(place),
            "inputs": [_entry(n, kind) for n, kind in network.inputs.items()],
            "outputs": [_entry(n, kind) for n, kind in network.outputs.items()],
            "tensors": [
                _entry(n, kind)
                | {"where": str(planned.places[n].where), "at": planned.places[n].at}
                for n, kind in network.tensors.items()
            ],
            "steps": [
                _step_entry(step, places)
                for step, places in zip(network.steps, packed[0].operands[place], strict=True)
            ],
            "arena": {
                "tensor_bytes": planned.arena_bytes,
                "lower_bound": planned.lower_bound,
                "sum_bytes": planned.sum_bytes,
            },
            "programs": {
                p.target: {
                    "constants": [*map(_constants, network.steps, p.operands[place])],
                    "constant_bytes": p.constants.nbytes,
                    "weights_file": p.suffix if self.beside else "",
                    "checks_file": p.suffix + protection.SUFFIX if self._checked else "",
                }
                for p in packed
            },
        }


def _place(
    planned: Plan, step: Step, argument: Argument, variant: Variant, constants: Constants
) -> Place:
    """Where a step finds an argument; what is always the same becomes a constant."""
    name = argument.name
    if argument.role == Role.OUTPUT:
        return planned.places[step.output]
    if argument.role == Role.PACKED:
        return Place(Where.CONSTANT, constants.packed(step, variant))
    if name in step.inputs:
        return planned.places[step.inputs[name]]
    if argument.role == Role.SCALAR:
        return Place(Where.NUMBER, int(step.constants[name]))
    return Place(Where.CONSTANT, constants.place(constant(step, argument)))


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
