"""Linear and convolutional layers on kernels of few bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from lpgen.errors import UserError
from lpgen.ops import parse
from lpgen.plans import Precision
from lpgen.torch import operators
from lpgen.torch.kernels import kernel, want

ROWS = 512
"""Rows that a call of a kernel takes; a layer calls it for as many as there are."""

IMAGES = 16


class Range(NamedTuple):
    """The static scale and zero point of a layer's input."""

    scale: float
    zero: int


class Weights(NamedTuple):
    """What a layer is made of: codes int8, [n, k] or [oc, kh, kw, ic]; scale float32, [n] or [n,
    groups]; bias float32 [n] or None."""

    codes: np.ndarray
    scale: np.ndarray
    bias: np.ndarray | None


class Quantized(nn.Module, ABC):
    """A layer whose weights are codes of few bits, computed by kernels.

    Its state is `codes`, `scale`, `bias`, `input_scale` and the zero point, for any CPU; what
    kernels read is packed from it by the first call, and again when other state is loaded. Not
    trained: it has no gradient.
    """

    def __init__(self, precision: Precision, weights: Weights, entry: Range | None) -> None:
        super().__init__()
        self.precision, self.zero = precision, entry.zero if entry else 0
        self.register_buffer("codes", torch.from_numpy(np.ascontiguousarray(weights.codes)))
        self.register_buffer("scale", torch.from_numpy(np.float32(weights.scale)))
        bias = None if weights.bias is None else torch.from_numpy(np.float32(weights.bias))
        self.register_buffer("bias", bias)
        scale = None if entry is None else torch.tensor([entry.scale], dtype=torch.float32)
        self.register_buffer("input_scale", scale)
        self.workloads: tuple[str, ...] = ()
        self.register_load_state_dict_post_hook(_pack)

    @abstractmethod
    def _texts(self) -> list[str]:
        """The workloads of the kernels that the layer calls."""

    def want(self) -> None:
        """Say which kernels the layer calls; each has packed weights of its own."""
        self.workloads = tuple(parse(text).name for text in self._texts())
        for i, workload in enumerate(self.workloads):
            want(workload)
            self.register_buffer(f"packed{i}", torch.empty(0, dtype=torch.uint8), persistent=False)

    def get_extra_state(self) -> dict[str, int]:
        return {"zero": self.zero}

    def set_extra_state(self, state: dict[str, int]) -> None:
        if state["zero"] != self.zero:
            self.zero = state["zero"]
            self.want()

    def pack(self) -> None:
        """Pack the weights for the layer's kernels, which are built where they are missing."""
        for i, workload in enumerate(self.workloads):
            parameters: dict[str, Any] = {"scale": self.scale.numpy()}
            if self.input_scale is not None:
                parameters["scale"] = parameters["scale"] * self.input_scale.numpy()
                parameters["input_scale"] = self.input_scale.numpy()
            if self.bias is not None:
                parameters["bias"] = self.bias.numpy()
            packed = kernel(workload).pack_weights(self.codes.numpy(), **parameters)
            setattr(self, f"packed{i}", torch.from_dlpack(packed.numpy()))

    def _packed(self, which: int) -> torch.Tensor:
        packed = getattr(self, f"packed{which}")
        if packed.numel() == 0:
            self.pack()
            packed = getattr(self, f"packed{which}")
        return packed

    def _readable(self, x: torch.Tensor) -> torch.Tensor:
        """The input as kernels take it. Raises UserError where a gradient is asked for."""
        if torch.is_grad_enabled() and x.requires_grad:
            raise UserError("a quantized layer has no gradient: call it under inference_mode()")
        return x if x.dtype == torch.float32 else x.float()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for workload in self.workloads:
            want(workload)

    def _words(self) -> str:
        """The formats, the input and the epilogue, as words of a workload."""
        p = self.precision
        scales = {"static": "f32", "row": "f32:row"}.get(p.scales) or f"f32:{p.scales}"
        words = [f"act={p.act} weight={p.weight} input={scales} out=f32"]
        words += [f"zero_act={self.zero}"] if self.zero else []
        words += [f"hadamard={p.hadamard}"] if p.hadamard else []
        words += [f"scale=group{p.weight_group}" if p.weight_group else "scale=channel"]
        words += ["bias=f32"] if self.bias is not None else []
        return " ".join(words)


class Linear(Quantized):
    """In place of `nn.Linear`: float32 [..., k] to [..., n], for any number of rows."""

    def __init__(self, precision: Precision, weights: Weights, entry: Range | None = None) -> None:
        super().__init__(precision, weights, entry)
        self.out_features, self.in_features = weights.codes.shape
        self.want()

    def _texts(self) -> list[str]:
        n, k = self.out_features, self.in_features
        return [f"dense m=1..{ROWS} n={n} k={k} {self._words()}"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = operators.dense(
            self._readable(x), self._packed(0), self.workloads[0], self.out_features
        )
        return y if y.dtype == x.dtype else y.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, {self.precision}"


class Geometry(NamedTuple):
    """Of a convolution, in rows and columns."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, module: nn.Conv1d | nn.Conv2d) -> Geometry:
        """Of a module; one of a single axis has one row. Raises UserError for padding that differs
        from side to side."""
        return cls(
            *(_pair(value, 1) for value in (module.kernel_size, module.stride)),
            _padding(module),
            _pair(module.dilation, 1),
            module.groups,
        )

    def out(self, size: Sequence[int]) -> tuple[int, int]:
        """The size of the result for an image of some rows and columns."""
        rows, columns = (
            (size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1)
            // self.stride[i]
            + 1
            for i in (0, 1)
        )
        return rows, columns

    def words(self) -> str:
        """As words of a workload."""
        pairs = zip(("kernel", "stride", "pad", "dilation"), self[:4], strict=True)
        return " ".join([*(f"{key}={a}x{b}" for key, (a, b) in pairs), f"groups={self.groups}"])


class Conv(Quantized):
    """In place of `nn.Conv2d` and `nn.Conv1d`, for images of the sizes that it was made for.

    Float32 [n, c, h, w] or [n, c, l], any number of images. Fastest where their memory has channels
    last (`torch.channels_last`), as its results have; others are copied.
    """

    def __init__(
        self,
        precision: Precision,
        weights: Weights,
        entry: Range,
        geometry: Geometry,
        axes: int,
        sizes: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__(precision, weights, entry)
        oc, _, _, ic = weights.codes.shape
        self.axes, self.geometry, self.sizes = axes, geometry, tuple(sizes)
        self.in_channels, self.out_channels = ic * geometry.groups, oc
        self.want()

    def _texts(self) -> list[str]:
        channels = f"ic={self.in_channels} oc={self.out_channels}"
        words = f"{channels} {self.geometry.words()} {self._words()}"
        return [f"conv2d n=1..{IMAGES} h={h} w={w} {words}" for h, w in self.sizes]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = self._readable(x)
        if self.axes == 1:
            image = image.unsqueeze(-2)
        size = tuple(image.shape[-2:])
        if size not in self.sizes:
            known = ", ".join(f"{h}x{w}" for h, w in self.sizes)
            raise UserError(
                f"a convolution was made for images of {known}, not {size[0]}x{size[1]}: "
                "calibration data decide the sizes"
            )
        which = self.sizes.index(size)
        y = operators.conv2d(
            image.permute(0, 2, 3, 1),
            self._packed(which),
            self.workloads[which],
            [*self.geometry.out(size), self.out_channels],
        ).permute(0, 3, 1, 2)
        return (y.squeeze(-2) if self.axes == 1 else y).to(x.dtype)

    def extra_repr(self) -> str:
        g = self.geometry
        return f"{self.in_channels} -> {self.out_channels}, {g.words()}, {self.precision}"


def _pair(value: tuple[int, ...], row: int) -> tuple[int, int]:
    """Of rows and columns, where `row` is that of a module without rows."""
    rows, columns = value if len(value) == 2 else (row, *value)
    return rows, columns


def _padding(module: nn.Conv1d | nn.Conv2d) -> tuple[int, int]:
    if module.padding == "valid":
        return 0, 0
    if module.padding != "same":
        return _pair(module.padding, 0)
    sides = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    if any(both % 2 for both in sides):
        raise UserError("padding that is not the same on both sides")
    return _pair(tuple(both // 2 for both in sides), 0)


def _pack(module: Quantized, keys: object) -> None:
    """Behind the loading of state. (A function of the module, so that it can be pickled.)"""
    module.pack()
