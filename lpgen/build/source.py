"""The texts of a library: its manifest, the C file that describes its kernels, its header."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

import numpy as np

from lpgen.build import interface
from lpgen.ops.packed import LAYOUTS

if TYPE_CHECKING:
    from tvm import IRModule

    from lpgen.algorithms.kernel import Kernel
    from lpgen.build.lower import Scratch
    from lpgen.formats import Format
    from lpgen.ops import Operator
    from lpgen.target import Target

SCHEMA = 3
"""Version of the manifest's form; the runtime refuses others."""


@dataclass(frozen=True)
class Choice:
    """One kernel of a library: the operator, the target, and what was chosen for them.

    seconds: the time of one call as it was tuned, None where nobody measured it for this target;
    threads: on how many; borrowed: the knobs are those of the operator's record without its
    epilogue; lender: the name of the other target whose record they are.
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

    @property
    def work(self) -> float:
        """Seconds that a call takes on one thread, about: a kernel too small stays on one.

        As tuned; else at the usual speed of products on vectors, and of reading from a cache.
        """
        if self.seconds is not None:
            return self.seconds * self.threads
        op = self.op
        speed = _PLAIN_OPS if self.template.endswith("/generic") else _VECTOR_OPS
        touched = math.prod(op.x_shape) + math.prod(op.y_shape) + self.kernel.layout.nbytes
        return max(op.ops / speed, touched / _READ_BYTES)

    @property
    def origin(self) -> str:
        """Where the knobs come from: "tuned", "as s32" (tuned without the epilogue), "record of
        TARGET", "record of TARGET as s32", or "model"."""
        words = [f"record of {self.lender}"] if self.lender else []
        words += ["as s32"] if self.borrowed else []
        return " ".join(words) or ("model" if self.seconds is None else "tuned")


_VECTOR_OPS = 1e11
_PLAIN_OPS = 5e9
_READ_BYTES = 2e10
"""Operations and bytes a second on one thread, where nobody measured."""


@dataclass(frozen=True)
class Part:
    """A choice with its name in the library, the identity of its packed weights, and the scratch
    memory of its two functions."""

    choice: Choice
    symbol: str
    identity: int
    scratch: Scratch
    pack_scratch: Scratch
    pieces: int
    """Into how many pieces its work can be shared among threads."""


def symbols(choices: Sequence[Choice]) -> list[str]:
    """A unique C name for each choice.

    A readable root and a hash of the canonical workload, the same in every library that has the
    workload once; several variants of one workload carry their targets as well.
    """
    names = [choice.op.name for choice in choices]
    return [
        f"lpgen_{choice.op.identifier}_{hashlib.sha256(choice.op.name.encode()).hexdigest()[:6]}"
        + (f"_{_identifier(choice.target.name)}" if names.count(choice.op.name) > 1 else "")
        for choice in choices
    ]


def _identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", text)


def identity(choice: Choice, packer: IRModule) -> int:
    """A number of 64 bits that the packed weights of this choice carry and those of others do not.

    packer: what packs them. With it and the versions, all that decides what their bytes mean.
    """
    op, versions = choice.op, _versions()
    knobs = dict(choice.knobs)
    of = [op.name, choice.target.name, choice.template, knobs, versions, packer.script()]
    text = json.dumps(of, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _versions() -> dict[str, str]:
    return {"lpgen": metadata.version("lpgen"), "tvm": metadata.version("apache-tvm")}


def manifest(parts: Sequence[Part]) -> dict[str, Any]:
    """What a library holds, as JSON values: its workloads, each with its variants, best first."""
    kernels: dict[str, dict[str, Any]] = {}
    for part in parts:
        op = part.choice.op
        entry = kernels.setdefault(op.name, _interface(op) | {"variants": []})
        entry["variants"].append(_variant(part))
    return {
        "schema": SCHEMA,
        **_versions(),
        "kernels": list(kernels.values()),
    }


def _interface(op: Operator) -> dict[str, Any]:
    def tensor(shape, form):
        values = {"min": form.min, "max": form.max, "step": form.step}
        if form.book:
            values["values"] = list(form.book)
        return {"shape": list(shape), "dtype": form.dtype, "format": str(form), **values}

    return {
        "workload": op.name,
        "ops": op.ops,
        "x": tensor(op.x_shape, op.act) | {"dtype": op.x_dtype, "format": _x_format(op)},
        "weights": tensor(op.w_shape, op.weight),
        "parameters": [
            {
                **{"name": name, "shape": list(p.shape), "dtype": p.dtype},
                **{"min": p.low, "max": p.high, "zeros": p.zeros},
            }
            for name, p in op.parameters.items()
        ],
        "residual": _residual(op),
        "y": {"shape": list(op.y_shape), "dtype": op.y_dtype, "format": op.out},
    }


def _x_format(op: Operator) -> str:
    """The format of x, with the layout if it is packed."""
    return str(op.act) if op.input not in LAYOUTS else f"{op.act}:{op.input}"


def _residual(op: Operator) -> dict[str, Any] | None:
    if not op.residual:
        return None
    form = str(op.residual.format)
    return {"shape": list(op.y_extents), "dtype": op.residual.dtype, "format": form}


def _variant(part: Part) -> dict[str, Any]:
    choice, scratch = part.choice, part.scratch
    return {
        "symbol": part.symbol,
        "target": choice.target.name,
        "features": list(choice.target.features),
        "template": choice.template,
        "knobs": dict(choice.knobs),
        "packed_bytes": interface.packed(choice.kernel.layout).nbytes,
        "identity": f"{part.identity:016x}",
        "workspace_bytes": {"serial": scratch.serial, "per_thread": scratch.per_thread},
        "pieces": part.pieces,
        "seconds": choice.seconds,
        "threads": choice.threads,
        "work": float(f"{choice.work:.3g}"),
        "origin": choice.origin,
    }


def c_source(parts: Sequence[Part], manifest: Mapping[str, Any]) -> str:
    """The generated C file: a description of every kernel, its public functions, the manifest."""
    text = json.dumps(manifest, separators=(",", ":"))
    lines = (text[i : i + 90] for i in range(0, len(text), 90))
    return "\n".join(
        [
            '#include "ffi.h"',
            *(_c_kernel(part) for part in parts),
            "const struct kernel *const lpgen_kernels[] = {",
            *(f"    &{part.symbol}_kernel," for part in parts),
            "    NULL};",
            "PUBLIC const char *lpgen_manifest(void) {",
            "  return",
            *(f"      {_c_string(line)}" for line in lines),
            "      ;",
            "}",
            "",
        ]
    )


def _c_kernel(part: Part) -> str:
    op, symbol = part.choice.op, part.symbol
    packed = interface.packed(part.choice.kernel.layout)
    features = ", ".join(_c_string(name) for name in part.choice.target.features)
    residual, weights = interface.residual(op), interface.given(op)[0]
    run, pack = run_symbol(symbol), pack_symbol(symbol)
    return f"""{interface.internal_functions(op, symbol, run, pack)}
static const char *const {symbol}_features[] = {{{features}{", " if features else ""}NULL}};
static const struct parameter {symbol}_parameters[] = {{{interface.parameter_initializers(op)}}};
static atomic_int {symbol}_cpu;
static const struct kernel {symbol}_kernel = {{
    .symbol = {_c_string(symbol)},
    .features = {symbol}_features,
    .identity = UINT64_C({part.identity:#x}),
    .x = {interface.x(op).initializer},
    .weights = {weights.initializer},
    .packed = {packed.initializer},
    .residual = {residual.initializer if residual else "{NULL}"},
    .y = {interface.y(op).initializer},
    .parameters = {symbol}_parameters,
    .outliers = {interface.outliers(op)},
    .weight_values = {{{_c_set(op.weight)}}},
    .serial_bytes = {part.scratch.serial}, .thread_bytes = {part.scratch.per_thread},
    .pack_bytes = {part.pack_scratch.nbytes(1)}, .work = {round(part.choice.work * 1e9)},
    .pieces = {part.pieces},
    .run = {symbol}_run, .pack = {symbol}_pack, .cpu = &{symbol}_cpu}};
{interface.public_functions(op, symbol)}
LPGEN_KERNEL({symbol}, &{symbol}_kernel)"""


def run_symbol(symbol: str) -> str:
    """The generated function behind the public one; internal to the library."""
    return f"run_{symbol}"


def pack_symbol(symbol: str) -> str:
    """The generated packer behind the public one; internal to the library."""
    return f"pack_{symbol}"


def _c_set(form: Format) -> str:
    """The values as a set of bytes: bit b % 64 of word b / 64."""
    words = np.zeros(4, np.uint64)
    for byte in form.values().astype(np.uint8).tolist():
        words[byte // 64] |= np.uint64(1 << byte % 64)
    return ", ".join(f"UINT64_C({word:#x})" for word in words.tolist())


def _c_string(text: str) -> str:
    # json escapes what C does, and the manifest is ASCII.
    return json.dumps(text)


def header(parts: Sequence[Part], library: str) -> str:
    """The header of the library file `library`."""
    folder = resources.files("lpgen.build")
    values = {
        "NAME": library.rpartition(".")[0] + ".h",
        "VERSION": metadata.version("lpgen"),
        "LIBRARY": library,
        "GUARD": f"LPGEN_{_identifier(library).upper()}_H",
        "STATUSES": _statuses((folder / "internal.h").read_text(encoding="utf-8")),
        "KERNELS": "".join(_header_kernel(part) for part in parts),
    }
    text = (folder / "header.h").read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda match: values[match[1]], text)


def _statuses(internal: str) -> str:
    """The members of lpgen_status as internal.h has them, with their numbers."""
    names = re.findall(r"^  (LPGEN_[A-Z_]+),$", internal, re.MULTILINE)
    return ",\n".join(f"  {name} = {number}" for number, name in enumerate(names))


def _header_kernel(part: Part) -> str:
    choice, symbol = part.choice, part.symbol
    op, macro, scratch = choice.op, symbol.upper(), part.scratch
    residual, (weights, *parameters) = interface.residual(op), interface.given(op)
    tensors = {
        interface.x(op): f", format {_x_format(op)}",
        weights: f", format {op.weight}",
        **dict.fromkeys(parameters, ""),
        **({residual: f", format {op.residual.format}"} if residual else {}),
        interface.y(op): "" if op.out in ("s32", "f32") else f", format {op.out}",
    }
    described = "".join(f" * {_c_shape(t)}{form}\n" for t, form in tensors.items())
    sizes = "".join(f"#define {macro}_{t.macro} ((size_t){t.nbytes})\n" for t in tensors)
    return f"""
/* {op.name}
{described} * {choice.template} for {choice.target.name} */
{sizes}#define {macro}_PACKED_BYTES ((size_t){interface.packed(choice.kernel.layout).nbytes})
#define {macro}_WORKSPACE_BYTES(threads) \\
  ((size_t){scratch.serial} + (size_t)(threads) * {scratch.per_thread})
{interface.run_signature(op, symbol)};
{interface.pack_signature(op, symbol)};
lpgen_status {symbol}_check_weights(const void *packed, size_t packed_bytes);
size_t {symbol}_workspace_bytes(int threads);
"""


def _c_shape(tensor: interface.Tensor) -> str:
    return f"{tensor.name} {tensor.c_type}{list(tensor.shape)}"
