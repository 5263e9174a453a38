"""MiniLM with few bits, quantized by lpgen: how near its embeddings are to those of float32.

python tests/quantized_minilm.py [PRECISION ...] [--method gptq]

Prints Spearman's correlation of all cosines of pairs of sentences with those of the float model,
and the share of sentences whose nearest neighbour is the same. Every second sentence calibrates.
"""

from __future__ import annotations

import argparse

import minilm
import numpy as np
import onnx
from scipy.stats import spearmanr

from lpgen.plans import groups_of, uniform
from lpgen.quantize import Calibration, Settings, quantize, simulated
from lpgen.quantize.session import Session

PRECISIONS = ("w8a8", "w4a8", "w4a8 hadamard=128", "w4a5 hadamard=128")


def embeddings(model: onnx.ModelProto, calls: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Of length 1, [sentences, 384]."""
    run = Session(model)
    found = np.concatenate([run(call)["embedding"] for call in calls])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def score(found: np.ndarray, reference: np.ndarray) -> str:
    """'Spearman, share of nearest neighbours that are the same'."""
    cosines, expected = found @ found.T, reference @ reference.T
    pairs = np.triu_indices(len(cosines), 1)
    spearman = spearmanr(cosines[pairs], expected[pairs]).statistic
    for matrix in (cosines, expected):
        np.fill_diagonal(matrix, -2)
    return f"{spearman:.4f}  {(cosines.argmax(1) == expected.argmax(1)).mean():.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("precisions", nargs="*", metavar="PRECISION")
    parser.add_argument("--method", action="append", choices=("rtn", "gptq"))
    arguments = parser.parse_args()
    model, tokens = minilm.Encoder().model(), minilm.sentences()
    calls, half = minilm.calls(tokens), tokens[::2]
    groups, reference = groups_of(model), embeddings(model, calls)
    calibration = Calibration(model, minilm.calls(half))
    print(f"{len(tokens)} sentences, {len(half)} calibrate{'':13} Spearman  nearest")
    for text in arguments.precisions or PRECISIONS:
        for method in arguments.method or ("rtn", "gptq"):
            made = quantize(calibration, uniform(groups, text), Settings(method)).model
            found = score(embeddings(simulated(made), calls), reference)
            print(f"{text + ', ' + method:40} {found}", flush=True)


if __name__ == "__main__":
    main()
