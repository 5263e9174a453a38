"""Networks for images as torchvision has them, with random weights: their speed and their integers
are those of trained ones.

python tests/vision_models.py FOLDER [NAME ...]

NAME: resnet18, resnet50, mobilenet_v2, mobilenet_v3_small write NAME.onnx (float32, batch norm
folded, as torch exports it) and NAME.int8.onnx (`quantize_static` of onnxruntime: QDQ, uint8 and
int8 with a scale for each channel). resnet18.w4a4, resnet18.w2a2, resnet50.w4a4 and the like write
NAME.onnx: uint4 or uint2 behind each ReLU, int4 or int2 weights with a scale for each channel, the
first and the last layer with 8 bits, as quantization-aware training makes them. Opset 25, whose
QuantizeLinear and DequantizeLinear have these types; with `.qonnx` behind it, NAME.qonnx.onnx,
nodes `Quant` of QONNX instead, and of one bit, `BipolarQuant` for weights.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 224
CODES = {2: (TensorProto.UINT2, TensorProto.INT2), 4: (TensorProto.UINT4, TensorProto.INT4)}
TYPES = {**CODES, 8: (TensorProto.UINT8, TensorProto.INT8)}
QONNX = "qonnx.custom_op.general"


class Graph:
    """A graph that grows: methods add nodes and return the edge that they end in; edges are images
    [1, channels, size, size], whose channels and sizes are in `shapes`.

    activation, weights: called with an edge, and with weights and their name, to quantize them;
    none: they stay float.
    """

    def __init__(self, seed: int = 0, size: int = SIZE) -> None:
        self.rng = np.random.default_rng(seed)
        self.size = size
        self.nodes, self.constants = [], []
        self.shapes: dict[str, tuple[int, int]] = {"x": (3, size)}

    def constant(self, array: np.ndarray, stem: str) -> str:
        name = f"{stem}{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, kind: str, inputs: list[str], shape: tuple[int, int], **attributes) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        self.shapes[name] = shape
        return name

    def activation(self, x: str, bits: int = 0) -> str:
        return x

    def weights(self, w: np.ndarray, bits: int = 0) -> str:
        return self.constant(w, "w")

    def conv(
        self, x: str, oc: int, kernel: int = 1, stride: int = 1, group: int = 1, bits=0
    ) -> str:
        """A convolution with batch norm in its weights."""
        ic, size = self.shapes[x]
        w = self.rng.normal(size=(oc, ic // group, kernel, kernel))
        w = (w * math.sqrt(2 / (w[0].size))).astype(np.float32)
        bias = self.constant(self.rng.normal(scale=0.1, size=oc).astype(np.float32), "b")
        inputs = [x, self.weights(w, bits), bias]
        how = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [stride] * 2}
        return self.node("Conv", inputs, (oc, -(-size // stride)), group=group, **how)

    def relu(self, x: str) -> str:
        return self.activation(self.node("Relu", [x], self.shapes[x]))

    def relu6(self, x: str) -> str:
        bounds = [self.constant(np.float32(v), "bound") for v in (0, 6)]
        return self.node("Clip", [x, *bounds], self.shapes[x])

    def hard_swish(self, x: str) -> str:
        return self.node("HardSwish", [x], self.shapes[x])

    def add(self, a: str, b: str) -> str:
        return self.node("Add", [a, b], self.shapes[a])

    def pool(self, x: str) -> str:
        channels, size = self.shapes[x]
        how = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2]}
        return self.node("MaxPool", [x], (channels, size // 2), **how)

    def mean(self, x: str) -> str:
        return self.node("GlobalAveragePool", [x], (self.shapes[x][0], 1))

    def flat(self, x: str) -> str:
        return self.node("Flatten", [x], self.shapes[x], axis=1)

    def dense(self, x: str, n: int, bits: int = 0) -> str:
        w = self.rng.normal(scale=0.05, size=(n, self.shapes[x][0])).astype(np.float32)
        bias = self.constant(self.rng.normal(scale=0.1, size=n).astype(np.float32), "b")
        return self.node("Gemm", [x, self.weights(w, bits), bias], (n, 1), transB=1)

    def squeezed(self, x: str, inner: int) -> str:
        """Squeeze and excitation: channels weighed by what their means say."""
        channels = self.shapes[x][0]
        inner = self.relu(self.conv(self.mean(x), inner))
        weighed = self.conv(inner, channels)
        gate = self.node("HardSigmoid", [weighed], (channels, 1), alpha=1 / 6, beta=0.5)
        return self.node("Mul", [gate, x], self.shapes[x])

    def model(self, y: str, opsets: dict[str, int]) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "scores"
        image = [1, 3, self.size, self.size]
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, self.shapes[y][0]])],
            self.constants,
        )
        opset_imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        return helper.make_model(graph, opset_imports=opset_imports, ir_version=10)


class FewBits(Graph):
    """With quantizers behind each ReLU, in front of what reads its result, and on weights; 8 bits
    in the first and the last layer. qonnx: by `Quant`, else by QuantizeLinear and
    DequantizeLinear."""

    def __init__(self, weight: int, act: int, qonnx: bool = False, **settings: int) -> None:
        super().__init__(**settings)
        self.weight, self.act, self.qonnx = weight, act, qonnx

    def activation(self, x: str, bits: int = 0) -> str:
        bits = bits or self.act
        # Behind a ReLU of what normal weights make, numbers are up to 4, here.
        return self._quantized(x, np.float32(4 / (2**bits - 1)), bits, False, self.shapes[x])

    def image(self, x: str) -> str:
        """The image, of which one unit is 32 codes of 8 bits, 0 being 128."""
        return self._quantized(x, np.float32(1 / 32), 8, False, self.shapes[x], 128)

    def weights(self, w: np.ndarray, bits: int = 0) -> str:
        bits = bits or self.weight
        scale = np.abs(w).reshape(len(w), -1).max(1) / (2 ** (bits - 1) - (0.5 if bits < 8 else 1))
        scale = scale.astype(np.float32)
        if self.qonnx:
            scale = scale.reshape(-1, *[1] * (w.ndim - 1))
            if bits == 1:
                mean = np.abs(w).mean(axis=tuple(range(1, w.ndim)), keepdims=True)
                inputs = [self.constant(w, "w"), self.constant(mean, "s")]
                return self.node("BipolarQuant", inputs, w.shape, domain=QONNX)
            return self._quantized(self.constant(w, "w"), scale, bits, True, w.shape)
        codes = np.rint(w / scale.reshape(-1, *[1] * (w.ndim - 1)))
        codes = np.clip(codes, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(int)
        name = f"w{len(self.constants)}"
        self.constants.append(helper.make_tensor(name, TYPES[bits][1], w.shape, codes.ravel()))
        inputs = [name, self.constant(scale, "s")]
        return self.node("DequantizeLinear", inputs, w.shape, axis=0)

    def _quantized(
        self, x: str, scale: np.ndarray, bits: int, signed: bool, shape, zero_point: int = 0
    ) -> str:
        if self.qonnx:
            rest = [self.constant(np.float32(v), "q") for v in (zero_point, bits)]
            inputs = [x, self.constant(scale, "s"), *rest]
            how = {"signed": int(signed), "narrow": 0, "rounding_mode": "ROUND"}
            return self.node("Quant", inputs, shape, domain=QONNX, **how)
        zero = f"z{len(self.constants)}"
        self.constants.append(helper.make_tensor(zero, TYPES[bits][signed], (), [zero_point]))
        how = [self.constant(scale, "s"), zero]
        codes = self.node("QuantizeLinear", [x, *how], shape)
        return self.node("DequantizeLinear", [codes, *how], shape)


def resnet(graph: Graph, blocks: tuple[int, ...], bottleneck: bool, classes: int = 1000) -> str:
    """ResNet-18 and -50 (version 1.5: the 3x3 convolution has the stride)."""
    x = graph.image("x") if isinstance(graph, FewBits) else "x"
    x = graph.pool(graph.relu(graph.conv(x, 64, 7, 2, bits=8)))
    for stage, count in enumerate(blocks):
        width, stride = 64 << stage, 2 if stage else 1
        for block in range(count):
            stride = stride if block == 0 else 1
            oc = width * (4 if bottleneck else 1)
            if bottleneck:
                inner = graph.relu(graph.conv(x, width))
                inner = graph.relu(graph.conv(inner, width, 3, stride))
                inner = graph.conv(inner, oc)
            else:
                inner = graph.relu(graph.conv(x, oc, 3, stride))
                inner = graph.conv(inner, oc, 3)
            same = stride == 1 and graph.shapes[x][0] == oc
            x = graph.relu(graph.add(inner, x if same else graph.conv(x, oc, 1, stride)))
    x = graph.flat(graph.activation(graph.mean(x), 8))
    return graph.dense(x, classes, bits=8)


def mobilenet_v2(graph: Graph) -> str:
    x = graph.relu6(graph.conv("x", 32, 3, 2))
    for expand, oc, count, stride in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1)),
        *((6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for block in range(count):
            ic, step = graph.shapes[x][0], stride if block == 0 else 1
            inner = graph.relu6(graph.conv(x, ic * expand)) if expand > 1 else x
            inner = graph.relu6(graph.conv(inner, ic * expand, 3, step, group=ic * expand))
            inner = graph.conv(inner, oc)
            x = graph.add(x, inner) if step == 1 and ic == oc else inner
    return graph.dense(graph.flat(graph.mean(graph.relu6(graph.conv(x, 1280)))), 1000)


def mobilenet_v3_small(graph: Graph) -> str:
    x = graph.hard_swish(graph.conv("x", 16, 3, 2))
    for kernel, inner, oc, squeeze, swish, stride in (
        *((3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2)),
        *((5, 240, 40, 1, 1, 1), (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1)),
        *((5, 144, 48, 1, 1, 1), (5, 288, 96, 1, 1, 2), (5, 576, 96, 1, 1, 1)),
        (5, 576, 96, 1, 1, 1),
    ):
        ic, act = graph.shapes[x][0], graph.hard_swish if swish else graph.relu
        y = act(graph.conv(x, inner)) if inner != ic else x
        y = act(graph.conv(y, inner, kernel, stride, group=inner))
        if squeeze:
            y = graph.squeezed(y, (inner // 4 + 4) // 8 * 8)
        y = graph.conv(y, oc)
        x = graph.add(x, y) if stride == 1 and ic == oc else y
    x = graph.flat(graph.mean(graph.hard_swish(graph.conv(x, 576))))
    return graph.dense(graph.hard_swish(graph.dense(x, 1024)), 1000)


NETWORKS: dict[str, Callable[[Graph], str]] = {
    "resnet18": lambda graph: resnet(graph, (2, 2, 2, 2), False),
    "resnet50": lambda graph: resnet(graph, (3, 4, 6, 3), True),
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_small": mobilenet_v3_small,
}


def float_model(name: str) -> onnx.ModelProto:
    graph = Graph()
    return graph.model(NETWORKS[name](graph), {"": 17})


def few_bits(
    name: str, weight: int, act: int, qonnx: bool = False, size: int = SIZE
) -> onnx.ModelProto:
    graph = FewBits(weight, act, qonnx, size=size)
    y = NETWORKS[name](graph)
    return graph.model(y, {"": 17, QONNX: 1} if qonnx else {"": 25})


def smooth(seed: int, count: int, size: int = SIZE) -> list[np.ndarray]:
    """Images [1, 3, size, size], float32, normalized: blotches."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 1, 3, -(-size // 8), -(-size // 8))).astype(np.float32)
    return [x.repeat(8, 2).repeat(8, 3)[..., :size, :size] for x in coarse]


def quantized(path: Path) -> Path:
    """The int8 file beside a float one, calibrated on four images."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(quantization.CalibrationDataReader):
        images = iter(smooth(1, 4))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"x": image}

    ready, out = path.with_suffix(".ready.onnx"), path.with_suffix(".int8.onnx")
    quant_pre_process(path, ready)
    types = quantization.QuantType
    quantization.quantize_static(
        *(ready, out, Images()),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=types.QUInt8,
        weight_type=types.QInt8,
    )
    ready.unlink()
    return out


def write(name: str, folder: Path) -> list[Path]:
    """The files of a name, as above. Raises ValueError for another one."""
    path = folder / f"{name}.onnx"
    bits = re.fullmatch(r"(\w+)\.w([1-8])a([1-8])(\.qonnx)?", name)
    if bits and bits[1] in NETWORKS:
        onnx.save(few_bits(bits[1], int(bits[2]), int(bits[3]), bool(bits[4])), path)
        return [path]
    if name not in NETWORKS:
        raise ValueError(f"{name} is none of {', '.join(NETWORKS)}, nor one with .w4a4 behind it")
    onnx.save(float_model(name), path)
    return [path, quantized(path)]


if __name__ == "__main__":
    for each in sys.argv[2:] or [*NETWORKS, "resnet18.w4a4", "resnet18.w2a2"]:
        print(*write(each, Path(sys.argv[1])), sep="\n")
