"""A block of a model as one call of a compiled network."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from lpgen.errors import UserError
from lpgen.torch import operators


class Block(nn.Module):
    """In place of a module: one call of the network in a library, for inputs of its shapes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = str(Path(path).resolve())
        self.outputs = len(operators.network(self.path).outputs)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
            raise UserError("a compiled block has no gradient: call it under inference_mode()")
        results = torch.ops.lpgen.network.default(list(inputs), self.path)
        return results[0] if self.outputs == 1 else tuple(results)

    def extra_repr(self) -> str:
        return self.path


def compile(
    module: nn.Module,
    example: Sequence[torch.Tensor],
    out: str | os.PathLike[str],
    dynamic: str = "s8",
) -> Block:
    """A module, float or with nodes that quantize, as a library of one network at `out`, and the
    block that calls it.

    It goes through torch's exporter to ONNX (which needs onnxscript) and is compiled as `lpgen
    compile` does, for the shapes of `example`. dynamic: the format of float activations in front of
    quantized weights. Raises UserError for what cannot be exported, and OnnxError for what no
    operator computes.
    """
    from lpgen.network import build
    from lpgen.onnx import read_network

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "block.onnx"
        try:
            torch.onnx.export(module.eval(), tuple(example), str(model), dynamo=True, verbose=False)
        except ImportError as error:
            raise UserError(f"torch cannot export: {error.name} is missing") from None
        build(read_network(model, dynamic=dynamic), "native", out)
    return Block(out)
