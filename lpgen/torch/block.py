"""A block of a model as one call of a compiled network."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
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
    precision: str = "w8a8",
    calibration: Iterable[Sequence[torch.Tensor]] | None = None,
) -> Block:
    """A module as a library of one network at `out`, and the block that calls it.

    It goes through torch's exporter to ONNX (which needs onnxscript), is quantized to `precision`
    and compiled as `lpgen quantize` and `lpgen compile` do, for the shapes of `example`.
    precision: of every layer, such as "w4a8"; "float": of none. calibration: arguments of more
    calls [example]. Raises UserError for what cannot be exported, and OnnxError for what no
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
        if precision != "float":
            _quantize(model, precision, calibration or [example])
        build(read_network(model), "native", out)
    return Block(out)


def _quantize(path: Path, precision: str, data: Iterable[Sequence[torch.Tensor]]) -> None:
    """Quantize the model in a file."""
    import onnx

    from lpgen.plans import groups_of, uniform
    from lpgen.quantize import Calibration, inputs_of, quantize, write

    model = onnx.load(path)
    names = list(inputs_of(model))
    calls = [{n: x.numpy() for n, x in zip(names, call, strict=True)} for call in data]
    plan = uniform(groups_of(model), precision)
    write(quantize(Calibration(model, calls), plan).model, path)
