"""PyTorch: its quantized operators on prepacked weights, in its two x86 engines.

FBGEMM and oneDNN behind torch.ops.quantized (what torch.ao's quantized modules call), and oneDNN
behind torch.ops.onednn on plain uint8 tensors (what torch.compile calls for an exported model).
A call includes the allocation of its result: torch has no way without.
"""

import importlib
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lpgen.bench.case import Case, Contender, Unsupported
from lpgen.bench.peers import Variants


def version() -> str:
    """Of the library."""
    return importlib.import_module("torch").__version__


def variants(case: Case, threads: int) -> Variants:
    import torch

    if case.op.group_size:
        raise Unsupported("weights with scales of groups are not compared")
    if case.op.kind not in ("dense", "conv2d"):
        raise Unsupported(f"no operator for {case.op.kind}")
    # They will move to another package.
    warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")
    torch.set_num_threads(threads)
    engines = [e for e in ("fbgemm", "onednn") if e in torch.backends.quantized.supported_engines]
    found: Variants = {engine: partial(_eager, case, engine) for engine in engines}
    if "onednn" in engines:
        found["onednn plain"] = partial(_plain, case)
    return found


def _eager(case: Case, engine: str) -> Contender:
    """Quantized tensors and modules' operators, in one engine."""
    import torch

    quantized = torch.ops.quantized
    x, x_zero = _input(case)
    weight, bias = _weight(case), _bias(case)
    torch.backends.quantized.engine = engine
    qx = torch._make_per_tensor_quantized_tensor(x, case.x_scale, x_zero)
    if case.op.kind == "dense":
        packed = quantized.linear_prepack(weight, bias)
        function = quantized.linear.default
    else:
        stride, pad, dilation, groups = _geometry(case.op)
        qx = qx.contiguous(memory_format=torch.channels_last)
        packed = quantized.conv2d_prepack(weight, bias, stride, pad, dilation, groups)
        function = quantized.conv2d.new
    run = partial(function, qx, packed, case.y_scale, case.y_zero)
    return Contender(_quick(run), lambda: _fetched(case, run().int_repr()), "u8", "int8")


def _plain(case: Case) -> Contender:
    """oneDNN on plain tensors, with scales and zero points as arguments."""
    import torch

    onednn = torch.ops.onednn
    x, x_zero = _input(case)
    w = torch.from_numpy(case.signed_weights())
    scale = torch.from_numpy(case.w_scale)
    zero = torch.zeros(len(scale), dtype=torch.int64)
    bias, tail = _bias(case), (case.y_scale, case.y_zero, torch.uint8, "none", [], "")
    if case.op.kind == "dense":
        packed = onednn.qlinear_prepack(w.contiguous(), list(x.shape))
        function = onednn.qlinear_pointwise.default
        arguments = (x, case.x_scale, x_zero, packed, scale, zero, bias, *tail)
    else:
        geometry = _geometry(case.op)
        first = w.permute(0, 3, 1, 2).contiguous()
        packed = onednn.qconv_prepack(first, scale, case.x_scale, x_zero, *geometry, list(x.shape))
        function = onednn.qconv2d_pointwise.default
        arguments = (x, case.x_scale, x_zero, packed, scale, zero, bias, *geometry, *tail)
    run = partial(function, *arguments)
    return Contender(_quick(run), lambda: _fetched(case, run()), "u8", "int8")


def _quick(run: Callable[[], Any]) -> Callable[[], Any]:
    """The call without the bookkeeping of gradients."""
    import torch

    # For the whole thread: entering the mode at each call would cost a microsecond.
    torch.autograd.grad_mode._enter_inference_mode(True)
    return run


def _input(case: Case) -> tuple[Any, int]:
    """x as uint8, in torch's order of axes with the memory order of NHWC, and its zero point."""
    import torch

    codes, zero = case.shifted_input(np.uint8)
    x = torch.from_numpy(codes)
    return (x if case.op.kind == "dense" else x.permute(0, 3, 1, 2)), zero


def _weight(case: Case) -> Any:
    import torch

    w = torch.from_numpy(case.signed_weights())
    if case.op.kind != "dense":
        w = w.permute(0, 3, 1, 2)
    scale = torch.from_numpy(case.w_scale.astype(np.float64))
    zero = torch.zeros(len(scale), dtype=torch.int64)
    return torch._make_per_channel_quantized_tensor(w.contiguous(), scale, zero, 0)


def _bias(case: Case) -> Any:
    import torch

    return None if case.bias is None else torch.from_numpy(case.real_bias)


def _geometry(op: Any) -> tuple[list[int], list[int], list[int], int]:
    top, left, bottom, right = op.pad
    if (top, left) != (bottom, right):
        raise Unsupported("pads both sides alike")
    return list(op.stride), [top, left], list(op.dilation), op.groups


def _fetched(case: Case, y: Any) -> np.ndarray:
    return (y if case.op.kind == "dense" else y.permute(0, 2, 3, 1)).contiguous().numpy()
