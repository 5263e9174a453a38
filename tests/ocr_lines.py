"""Rendered lines that a recogniser reads right: by a library of lpgen and by onnxruntime.

python tests/ocr_lines.py rec.so rec.int8.onnx rec.onnx [LINES]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import ocr_models
import onnx
import onnxruntime

from lpgen.runtime import load


def session(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """A call of onnxruntime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    made = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: made.run(None, {"x": x})[0]


def main() -> None:
    library, quantized, real, *count = sys.argv[1:]
    letters = ocr_models.characters(onnx.load(quantized))
    lines = ocr_models.rendered("rec", 1, int(count[0]) if count else 100)
    calls = {"lpgen": load(library).network, quantized: session(quantized), real: session(real)}
    read = {n: [ocr_models.read(run(x)[0], letters) for _, x in lines] for n, run in calls.items()}
    for name, found in read.items():
        right = sum(
            text.replace(" ", "") == line for (text, _), line in zip(lines, found, strict=True)
        )
        same = sum(map(str.__eq__, found, read["lpgen"]))
        print(f"{name:20} {right} of {len(lines)} right, {same} read as by lpgen")


if __name__ == "__main__":
    main()
