"""PyTorch modules on tuned kernels: few-bit layers in place of float ones.

    import torch, lpgen.torch

    small = lpgen.torch.quantize(model, "w4a8", calibration=batches)   # or a Plan, or its file
    print(lpgen.torch.report(small))                                   # what is float, and why
    with torch.inference_mode():
        y = small(x)

`nn.Linear`, `nn.Conv1d`, `nn.Conv2d`, `nn.LSTM` and `nn.GRU` are replaced by modules of this room,
which hold the codes of their weights (so a `state_dict` is of no CPU) and call operators of the
namespace `lpgen`, which `torch.export` and `torch.compile` keep as they are. `compile` makes one
call of a whole block. Results have no gradient.
"""

from lpgen.torch.block import Block, compile
from lpgen.torch.convert import FloatLayersWarning, Layer, quantize, report
from lpgen.torch.kernels import load, save
from lpgen.torch.layers import Conv, Linear
from lpgen.torch.recurrent import GRU, LSTM

__all__ = [
    "GRU",
    "LSTM",
    "Block",
    "Conv",
    "FloatLayersWarning",
    "Layer",
    "Linear",
    "compile",
    "load",
    "quantize",
    "report",
    "save",
]
