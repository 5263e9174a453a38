"""C texts of a library: the file that describes its kernels, and its header."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

from lpgen.build import interface
from lpgen.build.choice import (
    Exported,
    Variant,
    identifier,
    pack_symbol,
    run_symbols,
    targets_of,
)
from lpgen.build.interface import c_string, c_strings

if TYPE_CHECKING:
    from lpgen.target import Target


def c_source(kernels: Sequence[Exported], manifest: Mapping[str, Any], more: str = "") -> str:
    """The generated C file: a description of every kernel, its public functions, more that is built
    on them, the manifest."""
    text = json.dumps(manifest, separators=(",", ":"))
    lines = (text[i : i + 90] for i in range(0, len(text), 90))
    return "\n".join(
        [
            '#include "ffi.h"',
            _c_targets(targets_of(kernels)),
            *(_c_kernel(kernel) for kernel in kernels),
            "struct kernel *const lpgen_kernels[] = {",
            *(f"    &{kernel.symbol}_kernel," for kernel in kernels),
            "    NULL};",
            *([more] if more else []),
            "PUBLIC const char *lpgen_manifest(void) {",
            "  return",
            *(f"      {c_string(line)}" for line in lines),
            "      ;",
            "}",
            "",
        ]
    )


def _c_targets(targets: Sequence[Target]) -> str:
    """`lpgen_built_for`, the places in it, and the names of all."""
    features = "".join(
        f"static const char *const features_{identifier(target.name)}[] = {{\n"
        f"    {c_strings(target.features)}}};\n"
        for target in targets
    )
    rows = "".join(
        f"    {{{c_string(t.name)}, {c_string(t.level)}, features_{identifier(t.name)}, 0}},\n"
        for t in targets
    )
    return f"""{features}struct target lpgen_built_for[] = {{
{rows}    {{NULL, NULL, NULL, 0}}}};
enum {{ {", ".join(map(_place, targets))} }};
PUBLIC const char *lpgen_targets(void) {{
  return {c_string(", ".join(target.name for target in targets))};
}}"""


def _place(target: Target) -> str:
    return f"FOR_{identifier(target.name)}"


def _c_kernel(kernel: Exported) -> str:
    symbol, packing = kernel.symbol, kernel.packing
    variants = "".join(f"&{variant.symbol}, " for variant in kernel.variants)
    tables, parameters, count = "", "NULL", 0
    if packing:
        parameters, count = f"{symbol}_parameters", len(packing.inputs)
        weights = f"{symbol}_weights"
        tables = f"""
static const uint64_t {weights}[] = {{{interface.byte_set(kernel.op.weight)}}};
static const struct parameter {parameters}[] = {{
    {interface.parameter_table(packing, weights)}}};"""
    return f"""{"".join(_c_variant(kernel, variant) for variant in kernel.variants)}
static const struct argument {symbol}_arguments[] = {{
    {interface.argument_table(kernel.signature)}}};{tables}
static const struct variant *const {symbol}_variants[] = {{{variants}NULL}};
static struct kernel {symbol}_kernel = {{
    .symbol = {c_string(symbol)},
    .arguments = {symbol}_arguments, .count = {len(kernel.signature)},
    .packed = {interface.packed_place(kernel.signature)},
    .rows = {interface.rows_place(kernel.signature)},
    .parameters = {parameters}, .parameter_count = {count},
    .outliers = {interface.outliers_place(packing)},
    .variants = {symbol}_variants}};
_Static_assert({max(len(kernel.signature), count)} <= MAX_ARGUMENTS, "arguments of {symbol}");
{interface.public_functions(symbol, kernel.signature, packing)}"""


def _c_variant(kernel: Exported, variant: Variant) -> str:
    choice, symbol, pack_bytes = variant.choice, variant.symbol, 0
    runs, pack = run_symbols(choice), "NULL"
    if kernel.signature.rows:
        functions = interface.ranged_function(symbol, runs, choice.kernel, kernel.signature)
    else:
        functions = interface.run_function(symbol, *runs, kernel.signature)
    if kernel.packing:
        functions += interface.pack_function(symbol, pack_symbol(symbol), kernel.packing)
        pack, pack_bytes = f"{symbol}_pack", variant.pack_scratch.nbytes(1)
    return f"""{functions}
static const struct variant {symbol} = {{
    .target = &lpgen_built_for[{_place(choice.target)}],
    .identity = UINT64_C({variant.identity:#x}),
    .packed_bytes = {choice.kernel.packed_bytes},
    .serial_bytes = {variant.scratch.serial}, .thread_bytes = {variant.scratch.per_thread},
    .pack_bytes = {pack_bytes}, .work = {round(choice.work * 1e9)},
    .least_work = {round(choice.least_work * 1e9)},
    .pieces = {variant.pieces},
    .run = {symbol}_run, .pack = {pack}}};"""


def header(kernels: Sequence[Exported], library: str, more: str = "") -> str:
    """The header of the library file `library`; more: what stands behind its kernels."""
    folder = resources.files("lpgen.build")
    values = {
        "NAME": library.rpartition(".")[0] + ".h",
        "VERSION": metadata.version("lpgen"),
        "LIBRARY": library,
        "GUARD": f"LPGEN_{identifier(library).upper()}_H",
        "STATUSES": _statuses((folder / "internal.h").read_text(encoding="utf-8")),
        "TARGETS": textwrap.fill(
            ", ".join(target.name for target in targets_of(kernels)),
            96,
            initial_indent=" *   ",
            subsequent_indent=" *   ",
        ),
        "KERNELS": "".join(map(_header_kernel, kernels)) + more,
    }
    text = (folder / "header.h").read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda match: values[match[1]], text)


def _statuses(internal: str) -> str:
    """The members of lpgen_status as internal.h has them, with their numbers."""
    names = re.findall(r"^  (LPGEN_[A-Z_]+),$", internal, re.MULTILINE)
    return ",\n".join(f"  {name} = {number}" for number, name in enumerate(names))


def _header_kernel(kernel: Exported) -> str:
    symbol, signature, packing = kernel.symbol, kernel.signature, kernel.packing
    given = packing.inputs if packing else ()
    listed = [*signature.inputs, *given, *signature.scalars, *signature.outputs]
    described = "".join(f" * {interface.shape_text(argument)}\n" for argument in listed)
    sized = [a for a in (*listed, signature.packed) if a and a not in signature.scalars]
    sizes = "".join(interface.size_macro(symbol, argument) for argument in sized)
    chosen = "".join(
        f" * {v.choice.template} for {v.choice.target.name}\n" for v in kernel.variants
    )
    serial, per_thread = kernel.workspace
    name = textwrap.fill(kernel.op.name, 96, subsequent_indent=" *   ")
    text = f"""
/* {name}
{described}{chosen.rstrip()} */
{sizes}#define {symbol.upper()}_WORKSPACE_BYTES(threads) \\
  ((size_t){serial} + (size_t)(threads) * {per_thread})
{interface.run_declaration(symbol, signature)};
"""
    if packing:
        text += f"""{interface.pack_declaration(symbol, packing)};
{interface.check_declaration(symbol, packing)};
"""
    return f"{text}size_t {symbol}_workspace_bytes(int threads);\n"
