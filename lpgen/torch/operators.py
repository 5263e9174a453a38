"""The operators `lpgen::dense`, `lpgen::conv2d` and `lpgen::network`: one call of a kernel each.

Defined by `torch.library`, with shapes for tracing, so that `torch.export` and `torch.compile` keep
a call as one node. They run on the CPU, on as many threads as torch is set to, and have no
gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch.utils.weak import WeakIdKeyDictionary

from lpgen import runtime
from lpgen.errors import LibraryError
from lpgen.torch.kernels import kernel

_library = torch.library.Library("lpgen", "DEF")
_library.define("dense(Tensor x, Tensor packed, str workload, int n) -> Tensor")
_library.define("conv2d(Tensor x, Tensor packed, str workload, int[] shape) -> Tensor")
_library.define("network(Tensor[] inputs, str path) -> Tensor[]")


def _dense(x: torch.Tensor, packed: torch.Tensor, workload: str, n: int) -> torch.Tensor:
    """x [..., k] float32 times packed weights: [..., n] float32, for any number of rows."""
    if x.dim() == 2:
        return _in_parts(x, packed, workload, (n,))
    return _in_parts(x.reshape(-1, x.shape[-1]), packed, workload, (n,)).view(*x.shape[:-1], n)


def _conv2d(
    x: torch.Tensor, packed: torch.Tensor, workload: str, shape: Sequence[int]
) -> torch.Tensor:
    """x [n, h, w, c] float32, channels last: [n, *shape] float32, for any number of images."""
    return _in_parts(x, packed, workload, tuple(shape))


_held: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Packed tensors -> the kernels that they are for, as those take them."""


def _in_parts(
    x: torch.Tensor, packed: torch.Tensor, workload: str, shape: tuple[int, ...]
) -> torch.Tensor:
    """Calls of as many rows, or images, as the kernel takes at once."""
    called, weights = _held.get(packed) or _hold(packed, workload)
    x, threads = x.contiguous(), torch.get_num_threads()
    y = x.new_empty((x.shape[0], *shape))
    rows, most = x.shape[0], called.rows.high
    if rows <= most:
        if rows:
            called.run(x, weights, y, threads)
        return y
    for part, result in zip(x.split(most), y.split(most), strict=True):
        called.run(part, weights, result, threads)
    return y


def _hold(packed: torch.Tensor, workload: str) -> tuple[runtime.Kernel, runtime.PackedWeights]:
    called = kernel(workload)
    found = _held[packed] = called, called.own_weights(packed.numpy())
    return found


@cache
def network(path: str) -> runtime.Network:
    """The network in a library. Raises LibraryError where there is none."""
    found = runtime.load(path).network
    if found is None:
        raise LibraryError(f"{path} holds kernels alone, no network")
    return found


def _network(inputs: list[torch.Tensor], path: str) -> list[torch.Tensor]:
    """The outputs of a network, in its order."""
    called = network(path)
    named = {name: x.contiguous().numpy() for name, x in zip(called.inputs, inputs, strict=True)}
    results = called(named, threads=torch.get_num_threads())
    if len(called.outputs) == 1:
        return [torch.from_numpy(results)]
    return [torch.from_numpy(results[name]) for name in called.outputs]


for _name, _function in (("dense", _dense), ("conv2d", _conv2d), ("network", _network)):
    _library.impl(_name, _function, "CPU")


@torch.library.register_fake("lpgen::dense", lib=_library)
def _(x: torch.Tensor, packed: torch.Tensor, workload: str, n: int) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], n))


@torch.library.register_fake("lpgen::conv2d", lib=_library)
def _(x: torch.Tensor, packed: torch.Tensor, workload: str, shape: list[int]) -> torch.Tensor:
    return x.new_empty((x.shape[0], *shape))


@torch.library.register_fake("lpgen::network", lib=_library)
def _(inputs: list[torch.Tensor], path: str) -> list[torch.Tensor]:
    types = network(path).outputs.values()
    dtypes = (getattr(torch, str(t.dtype)) for t in types)
    return [inputs[0].new_empty(t.shape, dtype=d) for t, d in zip(types, dtypes, strict=True)]


def dense(x: torch.Tensor, packed: torch.Tensor, workload: str, n: int) -> torch.Tensor:
    """`lpgen::dense`, without the dispatcher where nobody traces."""
    call = _dense if _plain(x) else torch.ops.lpgen.dense.default
    return call(x, packed, workload, n)


def conv2d(
    x: torch.Tensor, packed: torch.Tensor, workload: str, shape: Sequence[int]
) -> torch.Tensor:
    """`lpgen::conv2d`, likewise."""
    call = _conv2d if _plain(x) else torch.ops.lpgen.conv2d.default
    return call(x, packed, workload, shape)


def _plain(x: torch.Tensor) -> bool:
    return type(x) is torch.Tensor and not torch.compiler.is_compiling()
