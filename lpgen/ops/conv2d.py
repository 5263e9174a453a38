"""The two-dimensional convolution, NHWC activations and OHWI weights."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from lpgen.formats import Format
from lpgen.ops.epilogue import Chain
from lpgen.ops.layers import LAYERS
from lpgen.ops.lhs import INPUT
from lpgen.ops.product import Matrix, Product
from lpgen.ops.product_oracle import rows_per_block
from lpgen.ops.rows import SIZE_OR_RANGE, Range, in_name, largest
from lpgen.ops.words import (
    COUNT,
    EDGES,
    FORMAT,
    KERNEL,
    MAX_ELEMENTS,
    NUMBER,
    PAIR,
    ZERO,
    ZERO_OR_SHARED,
    Word,
    as_edges,
    as_pair,
)


@dataclass(frozen=True, kw_only=True)
class Conv2d(Product):
    """Convolution (as networks define it: no flip) of x[n, h, w, ic] to y[n, oh, ow, oc]: int32, or
    what the epilogue makes of it.

    n may be a Range, given at each call. Weights are [oc, kh, kw, ic / groups]. `kernel`,
    `stride`, `dilation` are (height, width) or one number for both; `pad` is (top, left, bottom,
    right), (height, width) or one number: that many positions that add nothing to a sum, in every
    format. `act` and `weight` are formats (or their texts) of x and w; zero points and `epilogue`:
    see `Product`; layers: a Range of how many bit layers of the weights a call may use
    (`ops.layers`). Fields hold the full tuples.
    Raises WorkloadError when a size is outside its limits, the kernel is larger than the padded
    input, `groups` does not divide the channels, or a result may exceed int32.
    """

    n: int | Range = 1
    h: int
    w: int
    ic: int
    oc: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    act: Format
    weight: Format
    zero_act: int = 0
    zero_weight: int | str = 0
    outliers: int = 0
    epilogue: Chain = ()
    input: str = "act"
    hadamard: int = 0
    layers: Range | None = None

    kind: ClassVar[str] = "conv2d"
    ROWS: ClassVar[str] = "n"
    WORDS: ClassVar[dict[str, Word]] = {
        "n": SIZE_OR_RANGE,
        "h": NUMBER,
        "w": NUMBER,
        "ic": NUMBER,
        "oc": NUMBER,
        "kernel": KERNEL,
        "stride": PAIR,
        "pad": EDGES,
        "dilation": PAIR,
        "groups": NUMBER,
        "act": FORMAT,
        "weight": FORMAT,
        "zero_act": ZERO,
        "zero_weight": ZERO_OR_SHARED,
        "outliers": COUNT,
        "layers": LAYERS,
        "input": INPUT,
        "hadamard": COUNT,
    }

    def __post_init__(self) -> None:
        self._take_rows("n")
        for key in ("h", "w", "ic", "oc", "groups"):
            self._take_sizes(key, 1)
        for key in ("kernel", "stride", "dilation"):
            self._take_sizes(key, 1, as_pair)
        self._take_sizes("pad", 0, as_edges)
        self._take_sizes("outliers", 0)
        self._take_sizes("hadamard", 0)
        self._check_words()
        self._check_geometry()
        self._check_sizes()
        if largest(self.n) * math.prod(self.padded) * self.ic > MAX_ELEMENTS:
            self._fail(f"x with its padding has more elements than the limit {MAX_ELEMENTS}")

    def _check_geometry(self) -> None:
        for key in ("ic", "oc"):
            if getattr(self, key) % self.groups:
                self._fail(f"groups={self.groups} does not divide {key}={getattr(self, key)}")
        for axis, size, reach in zip(("h", "w"), self.padded, self.reach, strict=True):
            if size > MAX_ELEMENTS:
                self._fail(f"{axis}={size} with its padding is above the limit {MAX_ELEMENTS}")
            if reach > size:
                spread = " with its dilation" if reach > max(self.kernel) else ""
                self._fail(
                    f"kernel={self.WORDS['kernel'].write(self.kernel)} spans {reach}{spread}, "
                    f"more than the padded input's {axis}={size}"
                )

    @property
    def label(self) -> str:
        """conv2d 3x3 64->128@28x28 s2 u8 x s8 (kernel, ic->oc@h x w, stride)"""
        size = f"{self.kernel[0]}x{self.kernel[1]} {self.ic}->{self.oc}@{self.h}x{self.w}"
        batch = f" n{self.n}" if self.n != 1 else ""
        stride = f" s{max(self.stride)}" if max(self.stride) > 1 else ""
        groups = f" g{self.groups}" if self.groups > 1 else ""
        layers = f" layers {self.layers}" if self.layers else ""
        return f"conv2d {size}{batch}{stride}{groups} {self._formats}{layers}"

    @property
    def identifier(self) -> str:
        """conv2d_3x3_64x56x56_64_u8s8 (kernel, ic x h x w, oc)"""
        kernel, formats = "x".join(map(str, self.kernel)), f"{self.act.short}{self.weight.short}"
        batch = f"{in_name(self.n)}x" if self.range else ""
        layers = f"_layers{in_name(self.layers)}" if self.layers else ""
        return f"conv2d_{kernel}_{batch}{self.ic}x{self.h}x{self.w}_{self.oc}_{formats}{layers}"

    def smallest(self) -> Self:
        """Of one pixel."""
        geometry = {"n": 1, "h": 1, "w": 1, "kernel": 1, "stride": 1, "pad": 0, "dilation": 1}
        ic = max(32, self.hadamard)
        return replace(self, ic=ic, oc=32, groups=32 if self.depthwise else 1, **geometry)

    @property
    def reach(self) -> tuple[int, int]:
        """(height, width) of the input window that one output position reads."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    @property
    def padded(self) -> tuple[int, int]:
        """(height, width) of the input with its padding."""
        top, left, bottom, right = self.pad
        return self.h + top + bottom, self.w + left + right

    @property
    def oh(self) -> int:
        """Height of the result."""
        return (self.padded[0] - self.reach[0]) // self.stride[0] + 1

    @property
    def ow(self) -> int:
        """Width of the result."""
        return (self.padded[1] - self.reach[1]) // self.stride[1] + 1

    @property
    def depthwise(self) -> bool:
        """Whether every group has one input channel."""
        return self.groups == self.ic

    @cached_property
    def matrix(self) -> Matrix:
        """m: output positions, n: output channels of a group, k: taps and input channels."""
        kh, kw = self.kernel
        return Matrix(
            groups=self.groups,
            m=largest(self.n) * self.oh * self.ow,
            n=self.oc // self.groups,
            k=kh * kw * (self.ic // self.groups),
        )

    @property
    def x_extents(self) -> tuple[int, ...]:
        """(n, h, w, ic)"""
        return (largest(self.n), self.h, self.w, self.ic)

    @property
    def w_shape(self) -> tuple[int, ...]:
        """(oc, kh, kw, ic / groups); planes of signs one behind the other (`ops.layers`)."""
        kh, kw = self.kernel
        return (self.oc, kh * self.planes, kw, self.ic // self.groups)

    @property
    def y_extents(self) -> tuple[int, ...]:
        """(n, oh, ow, oc)"""
        return (largest(self.n), self.oh, self.ow, self.oc)

    def _rows(self, x: np.ndarray) -> np.ndarray:
        groups, _, _, k = self.matrix
        images = (np.moveaxis(self._windows(image), 2, 0) for image in x)
        return np.concatenate([image.reshape(groups, -1, k) for image in images], axis=1)

    def _sums(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        groups, _, n, k = self.matrix
        kind = self._exact_float
        right = w.reshape(groups, n, k).astype(kind).transpose(0, 2, 1)
        y = np.empty(self.y_extents, np.int32)
        block = rows_per_block(groups * self.ow * k)
        for image in range(self.n):
            windows = self._windows(x[image])
            for oh in range(0, self.oh, block):
                part = windows[oh : oh + block]
                # [oh, ow, groups, kh, kw, ic/groups] -> [groups, oh * ow, k]
                left = np.moveaxis(part, 2, 0).astype(kind).reshape(groups, -1, k)
                sums = (left @ right).transpose(1, 0, 2)
                y[image, oh : oh + block] = sums.reshape(-1, self.ow, self.oc)
        return y

    def _windows(self, image: np.ndarray) -> np.ndarray:
        """View [oh, ow, groups, kh, kw, ic/groups] of one image [h, w, ic] with its padding."""
        top, left, bottom, right = self.pad
        padded = np.pad(image, ((top, bottom), (left, right), (0, 0)))
        (sh, sw), (dh, dw) = self.stride, self.dilation
        view = np.lib.stride_tricks.sliding_window_view(padded, self.reach, axis=(0, 1))
        view = view[::sh, ::sw, :, ::dh, ::dw]
        view = view.reshape(*view.shape[:2], self.groups, -1, *self.kernel)
        return np.moveaxis(view, 3, 5)
