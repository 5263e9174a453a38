"""C text of a kernel's interface: its functions and the tables that describe its arguments."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lpgen.formats import Format
from lpgen.ops.rows import largest
from lpgen.ops.signature import Argument, Limits, Role, Signature
from lpgen.ops.sparse import NAMES

if TYPE_CHECKING:
    from lpgen.algorithms.kernel import RangedKernel

_COLUMNS, _INDENT = 100, " " * 4


def c_type(argument: Argument) -> str:
    """The C type of an element; of packed weights only their kernel knows it."""
    if argument.alignment > 1:
        return "void"
    return "float" if argument.dtype == "float32" else f"{argument.dtype}_t"


def shape_text(argument: Argument) -> str:
    """The argument in the header's comment: "x uint8_t[2, 4], format u8"."""
    if argument.role == Role.SCALAR:
        low, high = argument.limits[:2]
        return f"{argument.name} {low}..{high}"
    plain = argument.format in ("", "s32", "f32")
    shape = [argument.rows, *argument.shape[1:]] if argument.rows else argument.shape
    text = f"{argument.name} {c_type(argument)}[{', '.join(map(str, shape))}]"
    return text if plain else f"{text}, format {argument.format}"


def size_macro(symbol: str, argument: Argument) -> str:
    """The definition of a tensor's size in bytes, where it has rows at run time those of them."""
    name = f"{symbol}_{argument.name}".upper()
    if argument.rows:
        row = argument.nbytes // argument.shape[0]
        return f"#define {name}_BYTES({argument.rows}) ((size_t)({argument.rows}) * {row})\n"
    return f"#define {name}_BYTES ((size_t){argument.nbytes})\n"


# ---- public functions ----


def run_declaration(symbol: str, signature: Signature) -> str:
    """The function that computes, up to its closing parenthesis."""
    last = ["void *workspace, size_t workspace_bytes", "int threads"]
    return _wrapped(f"lpgen_status {symbol}(", [*map(_parameter, signature), *last])


def pack_declaration(symbol: str, packing: Signature) -> str:
    """The function that packs, up to its closing parenthesis."""
    return _wrapped(f"lpgen_status {symbol}_pack_weights(", map(_parameter, packing))


def check_declaration(symbol: str, packing: Signature) -> str:
    """The function that checks packed weights, up to its closing parenthesis."""
    name = packing.output.name
    arguments = [f"const void *{name}", f"size_t {name}_bytes"]
    return _wrapped(f"lpgen_status {symbol}_check_weights(", arguments)


def _parameter(argument: Argument) -> str:
    """What a public function takes for an argument."""
    name = argument.name
    if argument.role == Role.SCALAR:
        return f"int32_t {name}"
    const = "" if argument.role == Role.OUTPUT else "const "
    return f"{const}{c_type(argument)} *{name}, size_t {name}_bytes"


def _value(argument: Argument) -> str:
    """The same as a `struct value`."""
    if argument.role == Role.SCALAR:
        return f"{{NULL, 0, {argument.name}}}"
    return f"{{(void *){argument.name}, {argument.name}_bytes, 0}}"


def public_functions(symbol: str, signature: Signature, packing: Signature | None) -> str:
    """The definitions of the public functions, by those that check (entry.c)."""
    values = ", ".join(map(_value, signature))
    text = f"""
PUBLIC {run_declaration(symbol, signature)} {{
  const struct value given[] = {{{values}}};
  return kernel_run(&{symbol}_kernel, given, workspace, workspace_bytes, threads);
}}
LPGEN_KERNEL({symbol}, &{symbol}_kernel)"""
    if packing is None:
        return text
    values = ", ".join(map(_value, packing.inputs))
    packed = packing.output.name
    return f"""{text}
PUBLIC {pack_declaration(symbol, packing)} {{
  const struct value given[] = {{{values}}};
  return kernel_pack(&{symbol}_kernel, given, {packed}, {packed}_bytes);
}}
LPGEN_PACKER({symbol}, &{symbol}_kernel)"""


def _wrapped(start: str, arguments: Iterable[str]) -> str:
    """start + arguments + ")", in lines of 100 columns, below each other if they fit there."""
    *front, last = arguments
    texts = [*(f"{argument}, " for argument in front), f"{last})"]
    fits = len(start) + max(map(len, texts)) < _COLUMNS
    lines = [start] if fits else [start, _INDENT]
    indent = " " * len(start) if fits else _INDENT
    for text in texts:
        if len(lines[-1]) + len(text) >= _COLUMNS and lines[-1] != indent:
            lines[-1] = lines[-1].rstrip()
            lines.append(indent)
        lines[-1] += text
    return "\n".join(lines)


# ---- generated functions behind them ----


def ranged_function(
    symbol: str, runs: Sequence[str], kernel: RangedKernel, signature: Signature
) -> str:
    """{symbol}_run, which takes `struct value` with any number of rows, in front of the functions
    of the bodies, `runs`; signature: of the public function."""
    rows = signature.rows.name
    bodies = [function.signature for function in kernel.functions]
    prototypes = "".join(
        f"\nint32_t {run}({_prototype(own)}, int32_t threads);"
        for run, own in zip(runs, bodies, strict=True)
    )
    cases = ""
    for number, (run, own, body) in enumerate(zip(runs, bodies, kernel.bodies, strict=True)):
        given = ", ".join(_of_rows(signature, argument, rows) for argument in own)
        most = largest(body.rows)
        taken = str(most) if isinstance(body.rows, int) else f"left < {most} ? left : {most}"
        cases += f"""
      case {number}:
        taken = {taken};
        failed = {run}({given}, threads);
        break;"""
    place = signature.arguments.index(signature.rows)
    plan = textwrap.fill(", ".join(map(str, kernel.plan)), 90)
    plan_type = "uint8_t" if len(kernel.bodies) < 256 else "uint16_t"
    return f"""{prototypes}
/* By the number of rows that are left; the last for all larger ones. */
static const {plan_type} {symbol}_plan[] = {{
{plan}}};
static int32_t {symbol}_run(const struct value *given, int32_t threads) {{
  int32_t rows = given[{place}].number, taken = 0, failed = 0;
  for (int32_t row = 0; row < rows && !failed; row += taken) {{
    int32_t left = rows - row;
    switch ({symbol}_plan[left < {len(kernel.plan)} ? left : {len(kernel.plan) - 1}]) {{{cases}
    }}
  }}
  return failed;
}}"""


def _of_rows(signature: Signature, argument: Argument, rows: str) -> str:
    """What a body takes for an argument: from row `row` on, `taken` rows."""
    if argument.name == rows:
        return "taken"
    number = [a.name for a in signature].index(argument.name)
    given = signature.arguments[number]
    if not given.rows:
        return _field(given, number)
    return f"(char *)given[{number}].data + (size_t)row * {given.nbytes // given.shape[0]}"


def run_function(symbol: str, run: str, signature: Signature) -> str:
    """{symbol}_run, which takes `struct value`, in front of the generated function `run`."""
    given = [_field(argument, number) for number, argument in enumerate(signature)]
    return f"""
int32_t {run}({_prototype(signature)}, int32_t threads);
static int32_t {symbol}_run(const struct value *given, int32_t threads) {{
  return {run}({", ".join(given)}, threads);
}}"""


def pack_function(symbol: str, pack: str, packing: Signature) -> str:
    """{symbol}_pack, which takes `struct value`, in front of the generated function `pack`."""
    given = [_field(argument, number) for number, argument in enumerate(packing.inputs)]
    return f"""
int32_t {pack}({_prototype(packing)}, int32_t threads);
static int32_t {symbol}_pack(const struct value *given, void *packed) {{
  return {pack}({", ".join(given)}, packed, 1);
}}"""


def _prototype(signature: Signature) -> str:
    types = {Role.SCALAR: "int32_t ", Role.OUTPUT: "void *"}
    return ", ".join(types.get(a.role, "const void *") + a.name for a in signature)


def _field(argument: Argument, number: int) -> str:
    """What of the `struct value` of an argument a generated function takes."""
    if argument.role == Role.SCALAR:
        return f"given[{number}].number"
    data = f"given[{number}].data"
    return f"packed_data({data})" if argument.role == Role.PACKED else data


# ---- tables ----


def argument_table(signature: Signature) -> str:
    """The elements of an array of `struct argument`."""
    return ",\n    ".join(map(_argument_initializer, signature))


def _argument_initializer(argument: Argument) -> str:
    tensor, role = _tensor_initializer(argument), argument.role.name
    low, high = argument.limits[:2] if argument.role == Role.SCALAR else (0, 0)
    limits = f"{_int32(low)}, {_int32(high)}"
    return f"{{{role}, {tensor}, {argument.alignment}, {limits}, {int(bool(argument.rows))}}}"


def _int32(value: int) -> str:
    """As C writes it: the lowest one is no literal."""
    return f"{value}" if value > -(2**31) else f"({value + 1} - 1)"


def _tensor_initializer(argument: Argument) -> str:
    """As a `struct tensor`: name, type as DLPack numbers it, bits, dimensions, shape."""
    code = {"int": 0, "uint": 1, "float": 2}[re.sub(r"\d", "", argument.dtype)]
    sizes, bits = ", ".join(map(str, argument.shape)) or "0", re.sub(r"\D", "", argument.dtype)
    return f"{{{c_string(argument.name)}, {code}, {bits}, {len(argument.shape)}, {{{sizes}}}}}"


def parameter_table(packing: Signature, weights_set: str) -> str:
    """The elements of an array of `struct parameter`; weights_set: the array of legal bytes."""
    sets = {packing.arguments[0].name: weights_set}
    return ",\n    ".join(_parameter_initializer(a, sets.get(a.name)) for a in packing.inputs)


def _parameter_initializer(argument: Argument, legal: str | None) -> str:
    limits: Limits = argument.limits
    numbers = f"{float(limits.low)!r}, {float(limits.high)!r}, {limits.zeros:#x}"
    return f"{{{_tensor_initializer(argument)}, {numbers}, {legal or 'NULL'}}}"


def outliers_place(packing: Signature | None) -> int:
    """Which of the inputs of a packer is the first of the three of outliers, -1: none."""
    names = [argument.name for argument in packing.inputs] if packing else []
    return names.index(NAMES[0]) if NAMES[0] in names else -1


def packed_place(signature: Signature) -> int:
    """Which argument is the packed weights, -1: none."""
    return signature.arguments.index(signature.packed) if signature.packed else -1


def rows_place(signature: Signature) -> int:
    """Which argument is the number of rows, -1: it is fixed."""
    return signature.arguments.index(signature.rows) if signature.rows else -1


def byte_set(form: Format) -> str:
    """The values of a format as a set of bytes: bit b % 64 of word b / 64."""
    words = np.zeros(4, np.uint64)
    for byte in form.values().astype(np.uint8).tolist():
        words[byte // 64] |= np.uint64(1 << byte % 64)
    return ", ".join(f"UINT64_C({word:#x})" for word in words.tolist())


def c_string(text: str) -> str:
    """A string literal: JSON escapes what C does, of ASCII."""
    return json.dumps(text)


def c_strings(texts: Sequence[str]) -> str:
    """The elements of an array of strings that NULL ends."""
    return ", ".join([*map(c_string, texts), "NULL"])
