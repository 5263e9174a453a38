"""MiniLM of `lpgen compile` beside PyTorch and ONNX Runtime, in float32 and as they quantize it.

python tests/minilm_against.py LIB.so ... [--seconds 30]

Times calls of the libraries, all for one number of sentences and tokens, in turns in one process on
one thread, and prints the least. Others: PyTorch's modules with scaled_dot_product_attention, and
torch.ao's quantize_dynamic of their linear layers; ONNX Runtime on the model of `tests/minilm.py`,
and its quantize_dynamic of that, with a scale for each channel of the weights.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import minilm
import numpy as np
import onnx

from lpgen import runtime

Calls = dict[str, Callable[[], np.ndarray]]


def of_torch(ids: np.ndarray) -> Calls:
    """PyTorch in float32, and with int8 weights and dynamic activations."""
    import torch
    from safetensors.torch import load_file
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(1)
    weights = load_file(minilm.package_folder() / "model.safetensors")
    width, heads = minilm.WIDTH, minilm.HEADS

    def linear(name: str) -> nn.Linear:
        made = nn.Linear(*weights[f"{name}.weight"].shape[::-1])
        made.load_state_dict({k: weights[f"{name}.{k}"] for k in ("weight", "bias")})
        return made

    def norm(name: str) -> nn.LayerNorm:
        made = nn.LayerNorm(width, eps=1e-12)
        made.load_state_dict({k: weights[f"{name}.{k}"] for k in ("weight", "bias")})
        return made

    class Layer(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            parts = ("query", "key", "value")
            self.parts = nn.ModuleList(linear(f"{name}.attention.self.{p}") for p in parts)
            self.joined = linear(f"{name}.attention.output.dense")
            self.first = norm(f"{name}.attention.output.LayerNorm")
            self.inner = linear(f"{name}.intermediate.dense")
            self.outer = linear(f"{name}.output.dense")
            self.second = norm(f"{name}.output.LayerNorm")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            split = [part(x).unflatten(2, (heads, -1)).transpose(1, 2) for part in self.parts]
            context = functional.scaled_dot_product_attention(*split)
            x = self.first(x + self.joined(context.transpose(1, 2).flatten(2)))
            return self.second(x + self.outer(functional.gelu(self.inner(x))))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            stored = {k.removeprefix("embeddings."): v for k, v in weights.items()}
            words = stored["word_embeddings.weight"]
            self.words = nn.Embedding.from_pretrained(words)
            places = stored["position_embeddings.weight"][: minilm.PLACES]
            self.places = places + stored["token_type_embeddings.weight"][0]
            self.norm = norm("embeddings.LayerNorm")
            names = (f"encoder.layer.{index}" for index in range(minilm.LAYERS))
            self.layers = nn.Sequential(*map(Layer, names))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.norm(self.words(ids) + self.places[: ids.shape[1]])
            return self.layers(x).mean(1)

    given, real = torch.from_numpy(ids), Encoder().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they will move to another package
        few = torch.ao.quantization.quantize_dynamic(real, {nn.Linear}, dtype=torch.qint8)

    def called(model: nn.Module) -> Callable[[], np.ndarray]:
        def call() -> np.ndarray:
            with torch.inference_mode():
                return model(given).numpy()

        return call

    return {"PyTorch float32": called(real), "PyTorch int8": called(few)}


def of_onnxruntime(ids: np.ndarray, folder: Path) -> Calls:
    """ONNX Runtime in float32, and with int8 weights and dynamic activations."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    paths = {what: folder / f"{what}.onnx" for what in ("float32", "int8")}
    onnx.save(minilm.Encoder().model(), paths["float32"])
    quantize_dynamic(*paths.values(), weight_type=QuantType.QInt8, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4

    def called(path: Path) -> Callable[[], np.ndarray]:
        run = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run
        return lambda: run(None, {"input_ids": ids})[0]

    return {f"ONNX Runtime {what}": called(path) for what, path in paths.items()}


def of_library(path: Path, ids: np.ndarray) -> Callable[[], np.ndarray]:
    """A call of a compiled network."""
    out = np.zeros((len(ids), minilm.WIDTH), np.float32)
    run = runtime.load(path).network.bind({"input_ids": ids}, out=out)

    def call() -> np.ndarray:
        run()
        return out

    return call


def least(calls: Calls, seconds: float) -> dict[str, float]:
    """The least seconds of a call of each, three at a time in turns."""
    found, end = dict.fromkeys(calls, np.inf), time.monotonic() + seconds
    while time.monotonic() < end:
        for name, call in calls.items():
            for _ in range(3):
                start = time.perf_counter()
                call()
                found[name] = min(found[name], time.perf_counter() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="+", type=Path, metavar="LIB.so")
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    shapes = {runtime.load(p).network.inputs["input_ids"].shape for p in arguments.libraries}
    if len(shapes) > 1:
        parser.error(f"libraries are for different numbers of tokens: {shapes}")
    ids = np.random.default_rng(0).integers(1000, 28000, *shapes).astype(np.int64)
    with tempfile.TemporaryDirectory() as folder:
        calls = of_torch(ids) | of_onnxruntime(ids, Path(folder))
        calls |= {str(path): of_library(path, ids) for path in arguments.libraries}
        real = calls["PyTorch float32"]()
        for name, call in calls.items():
            y = call()
            cosines = (y * real).sum(1) / np.linalg.norm(y, axis=1) / np.linalg.norm(real, axis=1)
            print(f"{name:24} least cosine with float32 {cosines.min():.4f}", flush=True)
        times = least(calls, arguments.seconds)
    first = times[str(arguments.libraries[0])]
    for name, seconds in times.items():
        print(f"{name:24} {seconds * 1e3:8.3f} ms  {seconds / first:6.3f}")


if __name__ == "__main__":
    main()
