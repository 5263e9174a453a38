"""PP-OCRv4's recogniser with few bits, quantized by lpgen: rendered lines that it reads right.

python tests/quantized_ocr.py [LINES]    (pip install '.[cases,quantize]')
"""

from __future__ import annotations

import sys

import numpy as np
import ocr_models
import onnx

from lpgen.plans import groups_of
from lpgen.quantize import Calibration, Settings, quantize, usual
from lpgen.quantize.session import Session

PRECISIONS = (("w4a8", "gptq"), ("w8a8", "gptq"), ("w6a8", "gptq"), ("w4a8", "rtn"))


def edit_distance(a: str, b: str) -> int:
    """Levenshtein's."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def score(model: onnx.ModelProto, lines: list[tuple[str, np.ndarray]], letters: list[str]) -> str:
    """'lines read exactly / errors in 100 letters', spaces left out."""
    run = Session(model)
    errors, length, exact = 0, 0, 0
    for text, image in lines:
        (scores,) = run({"x": image}).values()
        wanted, read = text.replace(" ", ""), ocr_models.read(scores[0], letters)
        distance = edit_distance(read, wanted)
        exact, errors, length = exact + (distance == 0), errors + distance, length + len(wanted)
    return f"{100 * exact / len(lines):5.1f} % / {100 * errors / length:5.2f} %"


def main() -> None:
    lines = ocr_models.rendered("rec", 1, int(sys.argv[1]) if sys.argv[1:] else 100)
    calls = [{"x": image} for _, image in ocr_models.rendered("rec", 7, 48)]
    model = onnx.load(ocr_models.package_file("rec"))
    letters = ocr_models.characters(model)
    print(f"float{'':24} {score(model, lines, letters)}", flush=True)
    groups, calibration = groups_of(model), Calibration(model, calls)
    for bits, method in PRECISIONS:
        how = Settings(method, between=False)  # of layers alone
        made = quantize(calibration, usual(groups, f"{bits} static"), how)
        label = f"{bits} static, {method}"
        print(f"{label:29} {score(made.model, lines, letters)}", flush=True)


if __name__ == "__main__":
    main()
