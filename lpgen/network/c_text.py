"""C texts of a network: its table of steps, which network.c runs, and what its header says."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence

from lpgen.network.constants import Constants
from lpgen.network.network import Network
from lpgen.network.plan import Place, Plan, Where, nbytes
from lpgen.ops.signature import ALIGNMENT
from lpgen.ops.tensor_type import TensorType

# As `struct operand` calls them.
_C_NAMES = {
    Where.INPUT: "GIVEN",
    Where.OUTPUT: "WANTED",
    Where.ARENA: "ARENA",
    Where.CONSTANT: "CONSTANT",
    Where.NUMBER: "NUMBER",
}

STEPS_TYPE = """
#ifndef LPGEN_STEPS_TYPE
#define LPGEN_STEPS_TYPE
/* Which steps of a network are run: first .. last - 1. nanoseconds: for each step of the network
 * what it takes, or NULL; failed: set to the one that failed, or -1. */
typedef struct {
  int first, last;
  int64_t *nanoseconds;
  int failed;
} lpgen_steps;
#endif
"""


def steps(name: str, symbols: Sequence[str], operands: Sequence[Sequence[Place]]) -> str:
    """The table of steps {name}_steps.

    symbols: the kernel of each; operands: for each of its arguments, where it is.
    """
    steps, places, first = [], [], 0
    for symbol, given in zip(symbols, operands, strict=True):
        steps.append(f"    {{&{symbol}_kernel, {name}_operands + {first}}},")
        places.append("".join(f" {{{_C_NAMES[place.where]}, {place.at}}}," for place in given))
        first += len(given)
    lines, steps = "\n".join(f"   {text}" for text in places), "\n".join(steps)
    return f"""
static const struct operand {name}_operands[] = {{
{lines}
}};
static const struct step {name}_steps[] = {{
{steps}
}};"""


def table(name: str, network: Network, plan: Plan, programs: Sequence[str]) -> str:
    """`struct network` of programs, each the initializer of one, and the functions of C and
    tvm-ffi."""
    rows = "".join(f"\n    {{{program}}}," for program in programs)
    return f"""
static const struct program {name}_programs[] = {{{rows}
}};
static const size_t {name}_input_bytes[] = {{{_listed(network.inputs)}}};
static const size_t {name}_output_bytes[] = {{{_listed(network.outputs)}}};
static const struct network {name}_network = {{
    .name = "{name}", .step_count = {len(network.steps)},
    .input_count = {len(network.inputs)}, .output_count = {len(network.outputs)},
    .input_bytes = {name}_input_bytes, .output_bytes = {name}_output_bytes,
    .tensor_bytes = {plan.arena_bytes},
    .programs = {name}_programs}};
LPGEN_NETWORK({name}, &{name}_network)"""


def _listed(tensors: Mapping[str, TensorType]) -> str:
    return ", ".join(str(nbytes(kind)) for kind in tensors.values()) or "0"


def inside(name: str, file: str) -> str:
    """Constants in the library's read-only data, {name}_bytes, out of a file."""
    return f"""
__asm__(
    ".pushsection .rodata\\n .balign {ALIGNMENT}\\n .hidden {name}_bytes\\n .globl {name}_bytes\\n"
    "{name}_bytes:\\n .incbin \\"{file}\\"\\n .popsection\\n");
extern const unsigned char {name}_bytes[];"""


def beside(name: str, constants: Constants) -> str:
    """Constants in a file that is mapped, {name}_beside."""
    digest = textwrap.fill(", ".join(map(str, constants.digest)), 90)
    return f"""
static struct beside {name}_beside = {{.digest = {{
{digest}
}}}};"""


def header(
    name: str, network: Network, plan: Plan, constant_bytes: int, files: Mapping[str, str]
) -> str:
    """What the header says of the network; files: the ends of the names of the files with the
    constants, by target, none: they are in the library."""
    macro = name.upper()
    lines = "\n".join(_described("inputs", network.inputs) + _described("outputs", network.outputs))
    sizes = "".join(_sizes(f"{macro}_INPUT", network.inputs))
    sizes += "".join(_sizes(f"{macro}_OUTPUT", network.outputs))
    named = "".join(f"\n *   LIBRARY{file} for {target}" for target, file in files.items())
    more = f"""
/* Maps the file of the network's constants, once, before anything is run:{named} */
lpgen_status {name}_map_weights(const char *path);
"""
    return f"""{STEPS_TYPE}
/* The network: {len(network.steps)} steps, {constant_bytes} bytes of constants.
{lines}
 * Tensors are dense and row-major, of exactly these sizes, at addresses that suit their types. */
#define {macro}_INPUTS {len(network.inputs)}
#define {macro}_OUTPUTS {len(network.outputs)}
#define {macro}_STEPS {len(network.steps)}
{sizes}{more if files else ""}
/* Bytes of the arena of a call: {plan.arena_bytes} of tensors, and workspace. */
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


def _described(what: str, tensors: Mapping[str, TensorType]) -> list[str]:
    """Lines of a comment in C."""
    lines = (f"{what}[{i}] {json.dumps(n)} {t}" for i, (n, t) in enumerate(tensors.items()))
    return [f" *   {line}".replace("*/", "* /") for line in lines]


def _sizes(macro: str, tensors: Mapping[str, TensorType]) -> list[str]:
    sizes = enumerate(map(nbytes, tensors.values()))
    return [f"#define {macro}{i}_BYTES ((size_t){size})\n" for i, size in sizes]
