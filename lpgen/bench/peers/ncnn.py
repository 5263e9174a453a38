"""ncnn: nets of one int8 layer, input and result packed as they are between the layers of a net.

Layers: github.com/Tencent/ncnn/wiki/operators (Convolution, ConvolutionDepthWise, InnerProduct).
Its int8 is -127..127 and has no zero points. Activations that do not fit are shifted by 127, with
the highest of 256 codes counted as the one below; what a zero point adds to every sum goes into the
bias; and as ncnn does not pad with negative values (it smears their sign over packed channels),
such an input is padded beforehand.

Its 3x3 convolutions of stride 1 are minimal filtering, F(4x4), whose int32 sums are 576 times the
result: with the largest values that is too much from 32 channels on, and the result is wrong. Where
the operator's values may reach that it is told to filter directly.
"""

import importlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lpgen.bench.case import Case, Contender, Unsupported
from lpgen.bench.peers import Variants

_MAGIC = 7767517
_INT8_WEIGHTS = np.uint32(0x000D4B38)
"""What stands before int8 weights in a file (ModelBinFromDataReader::load)."""
_PACK = 8
"""Channels of int8 that lie together where so many divide them."""
_LOWEST, _HIGHEST = -127, 127
_FLOATS_OUT, _INT8_OUT = 1, 101
"""int8_scale_term: results multiplied by the scales, or also requantized."""
_FILTERING = 24 * 24
"""What its minimal filtering multiplies sums by before it divides them."""
_AS_IT_IS = 1
"""Extractor.extract's type that leaves layout and type of a result alone."""


@dataclass(frozen=True)
class _Layer:
    """A layer, its numbered parameters, weights and input, and how its result is turned round.

    case: that of the contest, with x as it is here; zero: what stands for 0 in `image`[c, h, w].
    """

    name: str
    parameters: dict[int, Any]
    weights: np.ndarray
    image: np.ndarray
    zero: int
    case: Case
    turn: Callable[[np.ndarray], np.ndarray]


def _filters(layer: _Layer) -> bool:
    """Whether its minimal filtering computes the layer's sums, however large they get."""
    op = layer.case.op
    largest = _HIGHEST if layer.zero != op.zero_act else max(op.act.max, -op.act.min)
    taps = layer.weights[0].size
    return taps * min(largest, _HIGHEST) * op.weight.largest * _FILTERING < 2**31


def version() -> str:
    """Of the library."""
    return importlib.import_module("ncnn").__version__


def variants(case: Case, threads: int) -> Variants:
    op = case.op
    if op.group_size:
        raise Unsupported("no weights with scales of groups")
    if op.kind == "dense":
        ways = {"InnerProduct": (_inner_product, _FLOATS_OUT)}
        name, function = "Convolution 1x1", _pointwise
    elif op.kind == "conv2d":
        ways, name, function = {}, "Convolution", _convolution
        if case.x.shape[0] != 1:
            raise Unsupported("takes one image at a time")
        if op.groups > 1:
            name = "ConvolutionDepthWise"
        if op.groups not in (1, op.oc):
            raise Unsupported("grouped convolutions have a scale per group, not per channel")
    else:
        raise Unsupported(f"no operator for {op.kind}")
    ways |= {name: (function, _FLOATS_OUT), f"{name} int8 out": (function, _INT8_OUT)}
    return {way: partial(_contender, case, threads, *how) for way, how in ways.items()}


def _inner_product(case: Case, codes: np.ndarray, zero: int) -> _Layer:
    w = case.signed_weights()
    parameters = {0: case.op.n, 1: 1, 2: w.size}
    return _Layer("InnerProduct", parameters, w, codes, zero, case, lambda y: y)


def _pointwise(case: Case, codes: np.ndarray, zero: int) -> _Layer:
    """A dense operator, its rows as the pixels of an image."""
    w = case.signed_weights()
    parameters = {0: case.op.n, 1: 1, 11: 1, 5: 1, 6: w.size}
    image = codes.T[:, None]
    return _Layer("Convolution", parameters, w, image, zero, case, lambda y: y[:, 0].T)


def _convolution(case: Case, codes: np.ndarray, zero: int) -> _Layer:
    op, w = case.op, case.signed_weights().transpose(0, 3, 1, 2)
    (top, left, bottom, right), image = op.pad, codes[0]
    if zero < 0:
        image = np.pad(image, ((top, bottom), (left, right), (0, 0)), constant_values=zero)
        top = left = bottom = right = 0
    parameters = {0: op.oc, 1: op.kernel[1], 11: op.kernel[0], 5: 1, 6: w.size}
    parameters |= {2: op.dilation[1], 12: op.dilation[0], 3: op.stride[1], 13: op.stride[0]}
    parameters |= {4: left, 15: right, 14: top, 16: bottom, 18: f"{zero:.1f}"}
    name = "Convolution"
    if op.groups > 1:
        name = "ConvolutionDepthWise"
        parameters[7] = op.groups
    image = image.transpose(2, 0, 1)
    return _Layer(name, parameters, w, image, zero, case, lambda y: y.transpose(1, 2, 0)[None])


def _contender(case: Case, threads: int, function: Callable[..., _Layer], form: int) -> Contender:
    """A layer that writes floats, or int8, whose lowest code stands for the oracle's two lowest."""
    seen, *codes = _codes(case)
    layer = function(seen, *codes)
    w = layer.weights
    bias = -layer.zero * w.reshape(len(w), -1).sum(1, dtype=np.int64)
    if case.bias is not None:
        bias = bias + case.bias
    real = bias * (np.float32(case.x_scale) * case.w_scale.astype(np.float64))
    last = []
    if form == _INT8_OUT:
        # From its lowest code to its highest instead of 0..255.
        real, last = real + (case.y_zero - 128) * case.y_scale, [1 / case.y_scale]
    layer.parameters[8] = form
    call, fetch = _net(layer, [real, 1 / case.w_scale, [1 / case.x_scale], last], threads)

    def result() -> np.ndarray:
        """The oracle's result, and by what ncnn's differs from that of the input it has seen."""
        y = layer.turn(fetch())
        if form == _FLOATS_OUT:
            return case.real + (y - seen.real)
        exact = seen.requantized.astype(np.int16)
        codes = np.where(y == _LOWEST, np.minimum(exact, 1), y.astype(np.int16) + 128)
        return case.requantized + (codes - exact)

    return Contender(call, result, "f32" if form == _FLOATS_OUT else "u8", "int8")


def _codes(case: Case) -> tuple[Case, np.ndarray, int]:
    """(the case that ncnn sees, its x as int8 in -127..127, its zero point)."""
    low, high = int(case.x.min()), int(case.x.max())
    shift = 0 if low >= _LOWEST and high <= _HIGHEST else 127 * (case.x.dtype == np.uint8)
    x = np.clip(case.x.astype(np.int16), _LOWEST + shift, _HIGHEST + shift)
    seen = case
    if not np.array_equal(x, case.x):
        x = x.astype(case.x.dtype)
        bare = replace(case.op, epilogue=())
        parameters = {name: case.parameters[name] for name in bare.parameters}
        seen = replace(case, x=x, sums=bare.reference(x, case.w, **parameters))
    codes = (x.astype(np.int16) - shift).astype(np.int8)
    return seen, codes, case.op.zero_act - shift


def _net(layer: _Layer, constants: list[Any], threads: int) -> tuple[Any, Any]:
    """(call, fetch) of a net of one layer."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_winograd_convolution = _filters(layer)
    for narrow in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{narrow}", False)
    words = " ".join(f"{key}={value}" for key, value in layer.parameters.items())
    text = f"{_MAGIC}\n2 2\nInput x 0 1 x\n{layer.name} y 1 1 x y {words}\n"
    if net.load_param_mem(text) != 0:
        raise Unsupported("ncnn does not take the layer")
    # From a file: from memory it would keep pointers into it.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.bin")
        path.write_bytes(_file(layer.weights, constants))
        if net.load_model(str(path)) != 0:
            raise Unsupported("ncnn does not take the weights")
    image = np.ascontiguousarray(layer.image)
    pack = _PACK if image.ndim == 3 and len(image) % _PACK == 0 else 1
    blob = ncnn.convert_packing(ncnn.Mat(image).clone(), pack)
    result = []

    def call() -> None:
        extractor = net.create_extractor()
        extractor.input("x", blob)
        code, y = extractor.extract("y", _AS_IT_IS)
        result[:] = (y,)
        if code != 0:
            raise RuntimeError(f"ncnn returned {code}")

    return call, lambda: np.array(ncnn.convert_packing(result[0], 1).numpy())


def _file(weights: np.ndarray, constants: list[Any]) -> bytes:
    """The layer's constants in the order in which it reads them."""
    codes = np.ascontiguousarray(weights).tobytes()
    parts = [_INT8_WEIGHTS.tobytes(), codes, bytes(-len(codes) % 4)]
    return b"".join(parts + [np.asarray(part, np.float32).tobytes() for part in constants])
