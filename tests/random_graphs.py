"""Random small graphs of ONNX beside the reference evaluator of ONNX, as many as one likes.

python tests/random_graphs.py [--first SEED] [--count N] [--compiled]

Scales are powers of two, so that results have to be equal, every one. --compiled: by libraries for
this CPU, else by the oracles of the operators that graphs become. Exits with status 1 where one
differs, naming its seed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx.reference import ReferenceEvaluator
from onnx_graphs import GROWN, OTHERS, network_of, random_model

from lpgen import runtime
from lpgen.network import build


def differs(seed: int, folder: Path, compiled: bool) -> bool:
    """Whether the graph of a seed gives other numbers; every fourth is of the layers that text
    recognisers have."""
    model, x = random_model(np.random.default_rng(seed), GROWN if seed % 4 == 0 else OTHERS)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    network = network_of(model, folder)
    if compiled:
        y = runtime.load(build(network, "native", folder / f"g{seed}.so")).network(x)
    else:
        (y,) = network.reference({"x": x}).values()
    return y.shape != expected.shape or not np.array_equal(y, expected)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--compiled", action="store_true")
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + asked.count)
    with tempfile.TemporaryDirectory() as folder:
        wrong = [seed for seed in seeds if differs(seed, Path(folder), asked.compiled)]
    print(f"{len(seeds) - len(wrong)} of {len(seeds)} graphs equal; others: {wrong or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
