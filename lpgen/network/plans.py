"""Several plans of one model in a library: the same inputs and outputs, other precisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lpgen.build.choice import Exported
from lpgen.build.part import Part, joined
from lpgen.errors import NetworkError
from lpgen.network.network import Network, TensorType
from lpgen.network.program import Program


@dataclass(frozen=True)
class Plans:
    """Programs by the names of their plans, the best first. Called with the kernels, it gives the
    part of the library; kernels of equal operators are shared, weights are not."""

    programs: Mapping[str, Program]

    def __call__(self, kernels: Sequence[Exported]) -> Part:
        parts = [program(kernels) for program in self.programs.values()]
        entries = [
            {"plan": plan, **part.manifest} for plan, part in zip(self.programs, parts, strict=True)
        ]
        return joined(parts, {**parts[0].manifest, "plans": entries})


def check_alike(plans: Mapping[str, Sequence[Network]]) -> None:
    """Raise NetworkError unless all plans take the same inputs, but for numbers of bit layers, and
    give the same outputs, in each of their versions."""
    if not plans:
        raise NetworkError("there are no plans")
    (first, versions), *others = plans.items()
    pairs = ((n, *pair) for n, v in others for pair in zip(versions, v, strict=True))
    for name, one, other in pairs:
        for what, ours, theirs in (
            ("input", _inputs(one), _inputs(other)),
            ("output", dict(one.outputs), dict(other.outputs)),
        ):
            for tensor in (*ours, *theirs):
                if ours.get(tensor) != theirs.get(tensor):
                    raise NetworkError(
                        f"plan {name}: {what} {tensor} is {theirs.get(tensor, 'not there')}, "
                        f"that of plan {first} {ours.get(tensor, 'not there')}"
                    )


def _inputs(network: Network) -> dict:
    """The inputs that are tensors."""
    number = TensorType((), "int32")
    return {name: kind for name, kind in network.inputs.items() if kind != number}
