"""zentorch: AMD's ZenDNN with the products of matrices of AOCL-DLP, an extension of PyTorch.

Operators: torch.ops.zentorch (github.com/amd/ZenDNN-pytorch-plugin), with weights blocked
beforehand, as its pass over a compiled model does (zentorch/_prepack_pass.py). Dense only.
"""

import importlib
import os
from functools import partial
from typing import Any

import numpy as np

from lpgen.bench.case import Case, Contender, Unsupported
from lpgen.bench.peers import Variants
from lpgen.runtime.memory import aligned_copy

_QUIET = {"ZENDNNL_LOG_LEVEL": "0", "ZENTORCH_PY_LOG_LEVEL": "ERROR"}


def version() -> str:
    """Of the library, which belongs to one minor version of torch."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    return importlib.import_module("zentorch").__version__


def variants(case: Case, threads: int) -> Variants:
    import torch

    if case.op.group_size:
        raise Unsupported("weights with scales of groups are not compared")
    if case.op.kind != "dense":
        raise Unsupported(f"no int8 {case.op.kind}")
    torch.set_num_threads(threads)
    return {
        "qlinear": partial(_linear, case, "u8"),
        "qlinear float out": partial(_linear, case, "f32"),
        "dynamic_qlinear": partial(_dynamic, case),
    }


def _linear(case: Case, out: str) -> Contender:
    """uint8 activations, to uint8 or float."""
    import torch

    codes, zero = case.shifted_input(np.uint8)
    x, w = torch.from_numpy(codes), torch.from_numpy(case.signed_weights())
    packed = torch.ops.zentorch.zentorch_weight_prepack_for_dynamic_qlinear(w, True)
    one = partial(torch.tensor, dtype=torch.float32)
    y = torch.from_numpy(_result(case, np.uint8 if out == "u8" else np.float32))
    last: tuple[Any, Any] = (None, None)
    if out == "u8":
        last = one([case.y_scale]), torch.tensor([case.y_zero], dtype=torch.int32)
    scales = one([case.x_scale]), torch.tensor([zero], dtype=torch.int32)
    weights = torch.from_numpy(case.w_scale), None
    bias = None if case.bias is None else torch.from_numpy(case.real_bias)
    function = torch.ops.zentorch.zentorch_qlinear.out
    run = partial(
        function, y, x, packed, *scales, *weights, bias, *last, y.dtype, is_weight_prepacked=True
    )
    return Contender(_quick(run), lambda: y.numpy(), out, "int8")


def _dynamic(case: Case) -> Contender:
    """Float activations, which it quantizes per row; its result is allocated by each call."""
    import torch

    x, w = torch.from_numpy(case.real_input()), torch.from_numpy(case.signed_weights())
    packed = torch.ops.zentorch.zentorch_weight_prepack_for_dynamic_qlinear(w)
    bias = None if case.bias is None else torch.from_numpy(case.real_bias)
    function = torch.ops.zentorch.zentorch_dynamic_qlinear.default
    scale = torch.from_numpy(case.w_scale)
    run = partial(function, x, packed, scale, bias, is_weight_prepacked=True)
    return Contender(_quick(run), lambda: run().numpy(), "f32", "int8")


def _quick(run: partial) -> partial:
    """The call without the bookkeeping of gradients."""
    import torch

    # For the whole thread: entering the mode at each call would cost a microsecond.
    torch.autograd.grad_mode._enter_inference_mode(True)
    return run


def _result(case: Case, dtype: Any) -> np.ndarray:
    return aligned_copy(np.zeros(case.op.y_shape, dtype))
