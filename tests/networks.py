"""Networks built by hand, for the tests of what runs them."""

from dataclasses import replace

import numpy as np

from lpgen.network import Network, Step, TensorType
from lpgen.ops import Operator, parse


def step(rng: np.random.Generator, name: str, op: Operator | str, output: str, **inputs) -> Step:
    """A step with random weights, parameters and constants, but for what `inputs` names."""
    op = parse(op) if isinstance(op, str) else op
    example = op.example(rng)
    constants = {name: value for name, value in example.inputs.items() if name not in inputs}
    return Step(name, op, inputs, output, example.weights, example.parameters, constants)


def two_layers(seed: int = 0) -> Network:
    """image uint8[1, 2, 6] -> dense -> dense -> y int32[1, 30]; the second sees another shape."""
    rng = np.random.default_rng(seed)
    first = "dense m=2 n=12 k=6 act=u8 weight=s3 out=u4 scale=tensor"
    second = "dense m=6 n=5 k=4 act=u4 weight=s8"
    steps = (
        step(rng, "first", first, "hidden", x="image"),
        step(rng, "second", second, "y", x="hidden"),
    )
    image, y = TensorType((1, 2, 6), "uint8"), TensorType((1, 30), "int32")
    return Network({"image": image}, {"y": y}, steps)


def residual_blocks(blocks: int = 3, size: int = 8, channels: int = 16, seed: int = 0) -> Network:
    """A small residual network on float images: quantize, `blocks` times (conv2d, conv2d, add), all
    of which share their kernels, dequantize; outputs y, float32, and what the last but one add
    gave."""
    rng = np.random.default_rng(seed)
    count = size * size * channels
    conv = f"conv2d h={size} w={size} ic={channels} oc={channels} kernel=3 pad=1 act=u8 weight=s8"
    conv = f"{conv} out=u8 scale=channel zero_out=100"
    add = f"add inner={count} a=u8 b=u8 out=u8"
    scales, sums = np.full(channels, 0.0005, np.float32), np.float32([1, 1, 1.5])
    zeros = np.int32([100, 100, 100])
    quantize = step(rng, "q", f"quantize axis={count} format=u8 per=tensor", "t0", x="x")
    steps = [_with(quantize, scale=np.float32([0.02]), zero=np.uint8([100]))]
    for block in range(blocks):
        begin = f"t{block}"
        for name, op, read in (("a", f"{conv} relu", begin), ("b", conv, f"a{block}")):
            made = step(rng, f"{name}{block}", op, f"{name}{block}", x=read)
            steps.append(replace(made, parameters=made.parameters | {"scale": scales}))
        made = step(rng, f"add{block}", add, f"t{block + 1}", a=f"b{block}", b=begin)
        steps.append(_with(made, scales=sums, zeros=zeros))
    back = f"dequantize axis={count} format=u8 per=tensor"
    steps.append(step(rng, "back", back, "y", x=f"t{blocks}"))
    shape = (1, size, size, channels)
    outputs = {"y": TensorType(shape, "float32"), f"t{blocks - 1}": TensorType(shape, "uint8")}
    return Network({"x": TensorType(shape, "float32")}, outputs, tuple(steps))


def _with(made: Step, **constants: np.ndarray) -> Step:
    return replace(made, constants=dict(made.constants) | constants)


def example(network: Network, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, (shape, dtype) in network.inputs.items():
        kind = np.dtype(dtype)
        if kind.kind == "f":
            made[name] = rng.normal(size=shape).astype(dtype)
        else:
            limits = np.iinfo(kind)
            made[name] = rng.integers(limits.min, limits.max, shape, kind, endpoint=True)
    return made
