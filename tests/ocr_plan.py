"""Data and a metric for plans of PP-OCRv4's recogniser.

python tests/ocr_plan.py FOLDER   writes calib.npz and score.npz: other lines than ocr_lines.py's

PYTHONPATH=tests lpgen plan rec.onnx --data calib.npz --score score.npz --metric ocr_plan:right ...
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import ocr_models
import onnx

CALIBRATE, SCORE = (7, 48), (3, 300)
"""Seeds and numbers of lines."""


@cache
def letters() -> list[str]:
    """What the classes stand for."""
    return ocr_models.characters(onnx.load(ocr_models.package_file("rec")))


@cache
def texts() -> dict[bytes, str]:
    """The texts of all lines by their images."""
    lines = [line for data in (CALIBRATE, SCORE) for line in ocr_models.rendered("rec", *data)]
    return {image.tobytes(): text.replace(" ", "") for text, image in lines}


def right(outputs: list[dict[str, np.ndarray]], calls: list[dict[str, np.ndarray]]) -> float:
    """The share of lines that are read exactly, spaces left out."""
    scores = (next(iter(found.values()))[0] for found in outputs)
    read = [ocr_models.read(each, letters()) for each in scores]
    wanted = [texts()[call["x"].tobytes()] for call in calls]
    return float(np.mean([ours == theirs for ours, theirs in zip(read, wanted, strict=True)]))


if __name__ == "__main__":
    for name, data in (("calib", CALIBRATE), ("score", SCORE)):
        images = [image for _, image in ocr_models.rendered("rec", *data)]
        np.savez(Path(sys.argv[1]) / f"{name}.npz", x=np.stack(images))
