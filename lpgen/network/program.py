"""Program of a network: the table of its steps that network.c runs, its header and its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lpgen.build.choice import Exported
from lpgen.build.part import Part
from lpgen.network.constants import Constants, constant, packed_weights
from lpgen.network.network import Network, Step
from lpgen.network.plan import Place, Plan, Where, nbytes
from lpgen.ops.signature import Argument, Role
from lpgen.ops.tensor_type import TensorType

# As `struct operand` calls them.
_C_NAMES = {
    Where.INPUT: "GIVEN",
    Where.OUTPUT: "WANTED",
    Where.ARENA: "ARENA",
    Where.CONSTANT: "CONSTANT",
    Where.NUMBER: "NUMBER",
}
_FILE = "constants"
_ALIGN = 64


@dataclass(frozen=True)
class Program:
    """A network on the kernels of a library, one for each operator.

    name: of its functions in C. Called with the kernels, it packs the weights and gives the part of
    the library. Raises NetworkError for weights that cannot be packed.
    """

    network: Network
    plan: Plan
    name: str

    def __call__(self, kernels: Sequence[Exported]) -> Part:
        by_name = {kernel.op.name: kernel for kernel in kernels}
        constants = Constants()
        operands = [
            [self._place(step, a, by_name[step.op.name], constants) for a in step.op.signature]
            for step in self.network.steps
        ]
        symbols = [by_name[step.op.name].symbol for step in self.network.steps]
        return Part(
            source=self._source(symbols, operands, constants.nbytes),
            header=self._header(constants.nbytes),
            manifest={"network": self._manifest(operands, constants.nbytes)},
            exports=(f"{self.name}_*",),
            files={_FILE: constants.write},
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

    def _source(
        self, symbols: Sequence[str], operands: Sequence[Sequence[Place]], constant_bytes: int
    ) -> str:
        name, network = self.name, self.network
        table = "\n".join(
            f"    {', '.join(f'{{{_C_NAMES[p.where]}, {p.at}}}' for p in places)},"
            for places in operands
        )
        steps, first = [], 0
        for symbol, places in zip(symbols, operands, strict=True):
            steps.append(f"    {{&{symbol}_kernel, {name}_operands + {first}}},")
            first += len(places)
        sizes = {
            "input": ", ".join(str(nbytes(kind)) for kind in network.inputs.values()) or "0",
            "output": ", ".join(str(nbytes(kind)) for kind in network.outputs.values()) or "0",
        }
        lines = "\n".join(steps)
        return f"""
__asm__(
    ".pushsection .rodata\\n .balign {_ALIGN}\\n .hidden {name}_constants\\n"
    " .globl {name}_constants\\n{name}_constants:\\n .incbin \\"{_FILE}\\"\\n .popsection\\n");
extern const unsigned char {name}_constants[];
static const struct operand {name}_operands[] = {{
{table}
}};
static const struct step {name}_steps[] = {{
{lines}
}};
static const size_t {name}_input_bytes[] = {{{sizes["input"]}}};
static const size_t {name}_output_bytes[] = {{{sizes["output"]}}};
static const struct network {name}_network = {{
    .name = "{name}", .steps = {name}_steps, .step_count = {len(symbols)},
    .input_count = {len(network.inputs)}, .output_count = {len(network.outputs)},
    .input_bytes = {name}_input_bytes, .output_bytes = {name}_output_bytes,
    .tensor_bytes = {self.plan.arena_bytes},
    .constants = {name}_constants, .constant_bytes = {constant_bytes}}};
LPGEN_NETWORK({name}, &{name}_network)"""

    def _header(self, constant_bytes: int) -> str:
        name, macro = self.name, self.name.upper()
        given = [*_described("inputs", self.network.inputs)]
        given += _described("outputs", self.network.outputs)
        sizes = "".join(_sizes(f"{macro}_INPUT", self.network.inputs))
        sizes += "".join(_sizes(f"{macro}_OUTPUT", self.network.outputs))
        lines = "\n".join(given)
        return f"""
#ifndef LPGEN_STEPS_T
#define LPGEN_STEPS_T
/* Which steps of a network are run: first .. last - 1. nanoseconds: for each step of the network
 * what it takes, or NULL; failed: set to the one that failed, or -1. */
typedef struct {{
  int first, last;
  int64_t *nanoseconds;
  int failed;
}} lpgen_steps;
#endif

/* The network: {len(self.network.steps)} steps, {constant_bytes} bytes of constants.
{lines}
 * Tensors are dense and row-major, of exactly these sizes, at addresses that suit their types. */
#define {macro}_INPUTS {len(self.network.inputs)}
#define {macro}_OUTPUTS {len(self.network.outputs)}
#define {macro}_STEPS {len(self.network.steps)}
{sizes}
/* Bytes of the arena of a call: {self.plan.arena_bytes} of tensors, and workspace. */
size_t {name}_arena_bytes(int threads);

/* Runs the network. arena: arena_bytes of scratch memory on a 64-byte boundary, in which nothing
 * has to be and nothing is kept; calls at the same time need different ones, and other outputs.
 * Outputs may not overlap inputs. Nothing is allocated. */
lpgen_status {name}_run(const void *const *inputs, void *const *outputs, void *arena,
{" " * (len(name) + 18)}size_t arena_bytes, int threads);

/* Runs some steps, on an arena and outputs as the steps in front of them left both. */
lpgen_status {name}_run_steps(const void *const *inputs, void *const *outputs, void *arena,
{" " * (len(name) + 24)}size_t arena_bytes, int threads, lpgen_steps *steps);
"""

    def _manifest(self, operands: Sequence[Sequence[Place]], constant_bytes: int) -> dict[str, Any]:
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
                {
                    "name": step.name,
                    "workload": step.op.name,
                    "inputs": dict(step.inputs),
                    "output": step.output,
                    "constants": {
                        argument.name: place.at
                        for argument, place in zip(step.op.signature, places, strict=True)
                        if place.where == Where.CONSTANT
                    },
                    "numbers": {
                        argument.name: place.at
                        for argument, place in zip(step.op.signature, places, strict=True)
                        if place.where == Where.NUMBER
                    },
                    "sources": list(step.sources),
                }
                for step, places in zip(network.steps, operands, strict=True)
            ],
            "arena": {
                "tensor_bytes": plan.arena_bytes,
                "lower_bound": plan.lower_bound,
                "sum_bytes": plan.sum_bytes,
            },
            "constant_bytes": constant_bytes,
        }


def _entry(name: str, kind: TensorType) -> dict[str, Any]:
    return {"name": name, "shape": list(kind.shape), "dtype": kind.dtype}


def _described(what: str, tensors: Mapping[str, TensorType]) -> list[str]:
    """Lines of a comment in C."""
    lines = (f"{what}[{i}] {json.dumps(n)} {t}" for i, (n, t) in enumerate(tensors.items()))
    return [f" *   {line}".replace("*/", "* /") for line in lines]


def _sizes(macro: str, tensors: Mapping[str, TensorType]) -> list[str]:
    sizes = enumerate(map(nbytes, tensors.values()))
    return [f"#define {macro}{i}_BYTES ((size_t){size})\n" for i, size in sizes]
