"""Networks as nodes of ONNX Runtime: a library of kernels that is a custom-op library, too.

`lpgen.onnx.partition` takes a model apart; what it leaves is a model whose nodes of domain `lpgen`
are these networks. A session takes both: `SessionOptions.register_custom_ops_library(library)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np

from lpgen.build.choice import Exported
from lpgen.build.part import Part, joined
from lpgen.errors import NetworkError
from lpgen.network.network import Network, TensorType
from lpgen.network.program import Program

DOMAIN = "lpgen"
"""Of the nodes that stand for networks."""

MOST_AXES = 16
# ONNX's numbers of types (TensorProto.DataType).
_TYPES = {
    **{"float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7},
    **{"bool": 9, "float16": 10, "float64": 11, "uint32": 12, "uint64": 13},
}
_FILES = ("ort.h", "ort.c")


@dataclass(frozen=True)
class Nodes:
    """Programs whose names are types of nodes. Called with the kernels, it gives the part of the
    library. Raises NetworkError for tensors that a node cannot have."""

    programs: Sequence[Program]

    def __call__(self, kernels: Sequence[Exported]) -> Part:
        parts = [program(kernels) for program in self.programs]
        tables = "".join(
            _table(program.name, program.versions[0].network) for program in self.programs
        )
        names = [program.name for program in self.programs]
        nodes = "".join(
            f'\n    {{&{n}_network, "{n}", {n}_ort_inputs, {n}_ort_outputs}},' for n in names
        )
        networks = [program.versions[0].network for program in self.programs]
        most = max(len(t) for n in networks for t in (n.inputs, n.outputs))
        source = f"""
#include "ort.h"
#define ORT_DOMAIN "{DOMAIN}"
enum {{ MAX_NODES = {len(names)}, MAX_TENSORS = {most} }};{tables}
static const struct ort_node ort_nodes[] = {{{nodes}
    {{NULL, NULL, NULL, NULL}}}};
#include "ort.c"
"""
        whole = joined(parts, {"networks": [part.manifest["network"] for part in parts]})
        return replace(
            whole,
            source=whole.source + source,
            exports=[*whole.exports, "RegisterCustomOps"],
            files=whole.files | {name: _writer(name) for name in _FILES},
        )


def _writer(name: str) -> Callable[[Path], None]:
    text = (resources.files("lpgen.build") / name).read_text(encoding="utf-8")
    return lambda path: path.write_text(text, encoding="utf-8") and None


def _table(name: str, network: Network) -> str:
    """The types and shapes of a network's tensors in C."""
    text = ""
    for what, tensors in (("inputs", network.inputs), ("outputs", network.outputs)):
        rows = ", ".join(_tensor(n, kind) for n, kind in tensors.items()) or "{0, 0, {0}}"
        text += f"\nstatic const struct ort_tensor {name}_ort_{what}[] = {{{rows}}};"
    return text


def _tensor(name: str, kind: TensorType) -> str:
    dtype = np.dtype(kind.dtype).name
    if dtype not in _TYPES or len(kind.shape) > MOST_AXES:
        raise NetworkError(f"tensor {name} is {kind}, which a node of ONNX Runtime cannot have")
    return f"{{{_TYPES[dtype]}, {len(kind.shape)}, {{{', '.join(map(str, kind.shape)) or '0'}}}}}"
