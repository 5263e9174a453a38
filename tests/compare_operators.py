"""How long operators without weights take, and the nodes of onnxruntime that compute them.

    python tests/compare_operators.py [WORD ...]

Each workload that has all the words, or all of them, beside its node, in turns in this process, on
one thread; the best of 40 rounds of 3 calls. Images are NHWC here and, where onnxruntime has no
other, NCHW there. Products are added as networks add them.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from lpgen import runtime
from lpgen.build import build
from lpgen.ops import Operator, parse
from lpgen.ops.rounded import Rounded
from lpgen.records.choose import choose
from lpgen.target import detect

RNG = np.random.default_rng(0)
ROUNDS, CALLS = 40, 3


def real(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def byte(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def quantization(*names: str) -> dict[str, np.ndarray]:
    """Scales and zero points, as a node of com.microsoft takes them."""
    given = {}
    for name in names:
        given |= {f"{name}_scale": np.float32(0.5), f"{name}_zero": np.uint8(7)}
    return given


def node(kind: str, inputs: dict[str, np.ndarray], constants=(), domain="", **attributes):
    """A call of the node on one thread; inputs: by names, in order; constants: names of those that
    are part of the model (all that are no tensors anyway)."""
    constants = {*constants, *(name for name, value in inputs.items() if value.ndim == 0)}
    to_type = helper.np_dtype_to_tensor_dtype
    live = {name: value for name, value in inputs.items() if name not in constants}
    infos = [helper.make_tensor_value_info(n, to_type(v.dtype), v.shape) for n, v in live.items()]
    kept = [onnx.numpy_helper.from_array(np.asarray(inputs[name]), name) for name in constants]
    made = helper.make_node(kind, list(inputs), ["y"], domain=domain, **attributes)
    y = helper.make_empty_tensor_value_info("y")
    opsets = [helper.make_opsetid(*pair) for pair in (("", 17), ("com.microsoft", 1))]
    graph = helper.make_graph([made], "node", infos, [y], kept)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    binding = session.io_binding()
    for name, value in live.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
    binding.bind_output("y")
    return lambda: session.run_with_iobinding(binding)


def microsoft(kind: str, inputs: dict[str, np.ndarray], **attributes):
    return node(kind, inputs, domain="com.microsoft", **attributes)


def pair(kind: str, count: int):
    a, b = ({name: byte(1, count)} | quantization(name) for name in "ab")
    return microsoft(kind, a | b | quantization("y"))


def pooled(kind: str, *shape: int, **attributes):
    given = {"x": byte(*shape)} | quantization("x", "y")
    return microsoft(kind, given, channels_last=1, **attributes)


STEM = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
MANY = 100_000

CASES: dict[str, Callable | None] = {
    "pool h=112 w=112 c=64 how=max kernel=3 stride=2 pad=1 act=u8": lambda: node(
        "MaxPool", {"x": byte(1, 64, 112, 112)}, **STEM
    ),
    "pool h=112 w=112 c=64 how=max kernel=3 stride=2 pad=1 act=f32": lambda: node(
        "MaxPool", {"x": real(1, 64, 112, 112)}, **STEM
    ),
    "pool h=7 w=7 c=2048 how=average kernel=7 act=u8": lambda: pooled(
        "QLinearGlobalAveragePool", 1, 7, 7, 2048
    ),
    "lookup size=200704 act=u8 out=u8": lambda: microsoft(
        "QLinearSigmoid", {"x": byte(200704)} | quantization("x", "y")
    ),
    "add inner=200704 a=u8 b=u8 out=u8": lambda: pair("QLinearAdd", 200704),
    "mul inner=200704 a=u8 b=u8 out=u8": lambda: pair("QLinearMul", 200704),
    "quantize axis=200704 format=u8": lambda: node(
        "QuantizeLinear", {"x": real(200704), "scale": np.float32(0.1), "zero": np.uint8(3)}
    ),
    "dequantize axis=200704 format=u8": lambda: node(
        "DequantizeLinear", {"x": byte(200704), "scale": np.float32(0.1), "zero": np.uint8(3)}
    ),
    "transpose shape=1x3x224x224 axes=0x2x3x1 dtype=float32 out=u8": None,
    "transpose shape=1x3x224x224 axes=0x2x3x1 dtype=float32": lambda: node(
        "Transpose", {"x": real(1, 3, 224, 224)}, perm=[0, 2, 3, 1]
    ),
    "transpose shape=64x3136 axes=1x0 dtype=uint8": lambda: node(
        "Transpose", {"x": byte(64, 3136)}, perm=[1, 0]
    ),
    "concat outer=3136 sizes=64x64 dtype=uint8": lambda: node(
        "Concat", {"a": byte(3136, 64), "b": byte(3136, 64)}, axis=1
    ),
    "resize h=28 w=28 c=96 oh=56 ow=56 mode=linear act=f32": lambda: node(
        "Resize",
        {"x": real(1, 96, 28, 28), "roi": real(0), "scales": np.float32([1, 1, 2, 2])},
        ("roi", "scales"),
        mode="linear",
    ),
    **{
        f"unary size={MANY} function={name.lower()}": lambda name=name: node(
            name, {"x": real(MANY)}
        )
        for name in ("Sigmoid", "Tanh", "Erf", "Exp", "Relu")
    },
    f"unary size={MANY} function=gelu": lambda: microsoft("Gelu", {"x": real(MANY)}),
    "binary function=mul middle=3136 inner=64 b_axes=oi": lambda: node(
        "Mul", {"a": real(1, 3136, 64), "b": real(1, 1, 64)}
    ),
    "softmax rows=1536 columns=128": lambda: node("Softmax", {"x": real(1536, 128)}),
    "layer_norm rows=128 columns=384": lambda: node(
        "LayerNormalization", {"x": real(128, 384), "scale": real(384), "bias": real(384)}
    ),
    "reduce how=mean outer=128 axis=384": lambda: node(
        "ReduceMean", {"x": real(128, 384)}, axes=[1]
    ),
    "matmul batch=12 m=128 n=128 k=32 order=nk": lambda: node(
        "MatMul", {"a": real(12, 128, 32), "b": real(12, 32, 128)}
    ),
    "matmul batch=12 m=128 n=32 k=128 order=kn": lambda: node(
        "MatMul", {"a": real(12, 128, 128), "b": real(12, 128, 32)}
    ),
}


def best_times(calls: list[Callable]) -> list[float]:
    """Seconds of each call, taken in turns."""
    best = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for number, call in enumerate(calls):
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            best[number] = min(best[number], (time.perf_counter() - start) / CALLS)
    return best


def as_in_networks(op: Operator) -> Operator:
    """With one rounding of products and sums, where it has any and this CPU can."""
    once = isinstance(op, Rounded) and detect().has_fma
    return replace(op, rounded="sum") if once else op


def main(words: list[str]) -> None:
    texts = [text for text in CASES if all(word in text for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        operators = [as_in_networks(parse(text)) for text in texts]
        path = build([choose(op) for op in operators], Path(folder) / "lib.so")
        library = runtime.load(path)
        for text, op in zip(texts, operators, strict=True):
            kernel = library[op.name]
            y = np.zeros(op.signature.output.shape, op.signature.output.dtype)
            calls = [kernel.bind(**op.example(RNG).inputs, out=y)]
            calls += [CASES[text]()] if CASES[text] else []
            own, *other = (seconds * 1e6 for seconds in best_times(calls))
            beside = f"{other[0]:9.1f} {other[0] / own:6.2f}" if other else " " * 16
            print(f"{own:9.1f} {beside}  {text}")


if __name__ == "__main__":
    print("    lpgen       ort  ratio  workload (us)")
    main(sys.argv[1:])
