"""How an epilogue is written in a workload, and read from it.

    out=u8 scale=channel bias=s32 residual=u8 zero_residual=5 clamp=relu zero_out=7

`relu` and `relu6` may stand for clamp=relu and clamp=relu6. The canonical text always names `out`,
and of the other words those that are not at their default. out=FORMAT:packed and out=FORMAT:planes
pack the result (`ops.packed`).
"""

from __future__ import annotations

from collections.abc import Mapping

from lpgen.formats import Format
from lpgen.ops.epilogue.bias import Bias
from lpgen.ops.epilogue.chain import out_of
from lpgen.ops.epilogue.clamp import Clamp
from lpgen.ops.epilogue.middle import Middle
from lpgen.ops.epilogue.pack import Pack
from lpgen.ops.epilogue.quantize import Quantize
from lpgen.ops.epilogue.residual import Residual
from lpgen.ops.epilogue.scale import Scale
from lpgen.ops.epilogue.step import Chain
from lpgen.ops.epilogue.threshold import Threshold
from lpgen.ops.packed import LAYOUTS

ALIASES = {"relu": "clamp=relu", "relu6": "clamp=relu6"}


def _read_out(text: str) -> object:
    """ "s32", "f32", a Format, or with a layout (Format, Pack)."""
    if text in ("s32", "f32"):
        return text
    form, colon, layout = text.rpartition(":")
    if not colon or not layout[:1].isalpha():
        return Format.parse(text)
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r} is none of {', '.join(LAYOUTS)}")
    return Format.parse(form), Pack(layout)


_READ = {"out": _read_out}
for _step in (Scale, Bias, Middle, Residual, Clamp, Quantize):
    _READ |= _step.READ
WORDS = tuple(_READ)
"""In canonical order."""


def words_of(chain: Chain) -> dict[str, str]:
    """The words of the chain, in canonical order."""
    words = {"out": out_of(chain)}
    for step in chain:
        words |= step.words()
    return {key: words[key] for key in WORDS if key in words}


def read_word(key: str, text: str) -> object:
    """The value of one of WORDS; ValueError or FormatError with the reason if it has none."""
    return _READ[key](text)


def chain_of(words: Mapping[str, object]) -> Chain:
    """The chain that the words describe, each as `read_word` gave it; the operator checks it.

    Raises ValueError for words that contradict each other.
    """
    given = {"out": "s32", "scale": "none", "bias": "none", "residual": "none", "clamp": "none"}
    given |= {"middle": "none"} | words
    out, scale = given["out"], given["scale"]
    out, pack = out if isinstance(out, tuple) else (out, None)
    if out == "s32" and scale != "none":
        raise ValueError(f"scale={scale} gives real numbers: out= has to be f32 or a format")
    if out != "s32" and scale == "none":
        raise ValueError(f"out={out} needs scale=tensor or scale=channel")
    quantized = isinstance(out, Format)
    for word, there, other in (
        ("zero_out", quantized, f"out={out}"),
        ("zero_middle", given["middle"] != "none", "middle=none"),
        ("zero_residual", given["residual"] != "none", "residual=none"),
    ):
        if word in given and not there:
            raise ValueError(f"{word}={given[word]}: {other} has no zero point")
    if scale == "thresholds":
        if not quantized or "zero_out" in given:
            raise ValueError("scale=thresholds is for out=FORMAT, and has no zero_out")
        scale = "none"
        last = Threshold(out)
    else:
        last = Quantize(out, given.get("zero_out", 0)) if quantized else None
    steps = [
        Bias("s32") if given["bias"] == "s32" else None,
        Scale(scale) if scale != "none" else None,
        Bias("f32") if given["bias"] == "f32" else None,
        Middle(given["middle"], given.get("zero_middle", 0)) if given["middle"] != "none" else None,
        Residual(given["residual"], given.get("zero_residual", 0))
        if given["residual"] != "none"
        else None,
        Clamp(given["clamp"]) if given["clamp"] != "none" else None,
        last,
        pack,
    ]
    return tuple(step for step in steps if step is not None)
