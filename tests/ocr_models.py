"""PP-OCRv4 of the package rapidocr-onnxruntime, quantized as its users do: `quantize_static` of
onnxruntime, uint8 activations, int8 weights with a scale for each channel, calibrated on rendered
lines of text.

python tests/ocr_models.py FOLDER [NAME ...]   writes NAME.onnx and NAME.int8.onnx: det, rec, cls
"""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import onnx
from onnx import version_converter
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image, ImageDraw, ImageFont

PACKAGE = "rapidocr_onnxruntime"
FILES = {
    "det": "ch_PP-OCRv4_det_infer",
    "rec": "ch_PP-OCRv4_rec_infer",
    "cls": "ch_ppocr_mobile_v2.0_cls_infer",
}
SHAPES = {"det": (1, 3, 640, 640), "rec": (1, 3, 48, 320), "cls": (1, 3, 48, 192)}
FONTS = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral", "DejaVuSans-Bold")
WORDS = Path("/usr/share/common-licenses/GPL-3")  # text at hand on every Debian system
OPSET = 17  # of the files it is 10 to 12: scales of channels need 13


def package_file(name: str) -> Path | None:
    """Where the package has a model, None where it is not installed; it is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / f"models/{FILES[name]}.onnx"


def line(draw: random.Random, words: Sequence[str]) -> tuple[str, Image.Image]:
    """Three words in a row, and their picture, black on white."""
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    start = draw.randrange(len(words) - 4)
    text = " ".join(words[start : start + 3])
    font = ImageFont.truetype(folder / f"{draw.choice(FONTS)}.ttf", draw.randrange(20, 40))
    image = Image.new("RGB", (int(font.getlength(text)) + 20, 56), "white")
    ImageDraw.Draw(image).text((10, 6), text, "black", font=font)
    return text, image


def rendered(name: str, seed: int, count: int) -> list[tuple[str, np.ndarray]]:
    """Texts and the inputs of a model that show them: one line each, or for det pages of twelve."""
    draw, words = random.Random(seed), WORDS.read_text().split()
    height, width = SHAPES[name][2:]
    found = []
    for _ in range(count):
        canvas = Image.new("RGB", (width, height), (127, 127, 127) if name != "det" else "white")
        texts = []
        for i in range(12 if name == "det" else 1):
            text, image = line(draw, words)
            if name != "det":
                fits = min(width, max(height, image.width * height // image.height))
                image = image.resize((fits, height))
            canvas.paste(image, (10, 50 * i + 10) if name == "det" else (0, 0))
            texts.append(text)
        pixels = np.asarray(canvas, np.float32)[None, :, :, ::-1].transpose(0, 3, 1, 2)
        found.append(("\n".join(texts), pixels / np.float32(127.5) - 1))
    return found


class Images(quantization.CalibrationDataReader):
    """Inputs, one by one."""

    def __init__(self, name: str, images: Sequence[np.ndarray]) -> None:
        self.name, self.images = name, iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.images, None)
        return None if image is None else {self.name: image}


def quantized(name: str, folder: Path, images: int = 48, form: str = "QDQ") -> Path:
    """The file NAME.int8.onnx in the folder, beside NAME.onnx, the float model of its shape;
    images: how many calibrate it, of the detector at most 4."""
    model = onnx.load(package_file(name))
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    for dimension, size in zip(sizes, SHAPES[name], strict=True):
        dimension.dim_value = size
    paths = [folder / f"{name}{end}.onnx" for end in (".raised", "", ".int8")]
    onnx.save(version_converter.convert_version(model, OPSET), paths[0])
    quant_pre_process(paths[0], paths[1], skip_symbolic_shape=True)
    given = [x for _, x in rendered(name, 7, min(images, 4) if name == "det" else images)]
    quantization.quantize_static(
        *paths[1:],
        Images(model.graph.input[0].name, given),
        quant_format=quantization.QuantFormat[form],
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
    )
    paths[0].unlink()
    return paths[2]


def characters(model: onnx.ModelProto) -> list[str]:
    """What the classes of the recogniser stand for; 0 is the blank."""
    known = {entry.key: entry.value for entry in model.metadata_props}
    return ["blank", *known["character"].splitlines(), " "]


def read(scores: np.ndarray, letters: Sequence[str]) -> str:
    """The text in scores [time, classes], the best class of each step; spaces left out."""
    best = scores.argmax(1)
    fresh: Iterator[int] = (c for i, c in enumerate(best) if c and (i == 0 or c != best[i - 1]))
    return "".join(letters[c] for c in fresh).replace(" ", "")


if __name__ == "__main__":
    for each in sys.argv[2:] or FILES:
        print(quantized(each, Path(sys.argv[1])))
