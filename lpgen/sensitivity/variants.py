"""Variants: what is done to one group of layers while all others stay float.

| kind    | what                                                                               |
|---------|------------------------------------------------------------------------------------|
| weights | fewer bits, as `lpgen.quantize` rounds them: w4, w4 weight_group=64                 |
| layers  | so many bit layers of 8: layers=3                                                   |
| acts    | activations of fewer bits: a6 row, a8 static, a4 row hadamard=128                   |
| flips   | each bit of the stored weights is flipped with this probability: flips=0.001        |
| noise   | normal noise on the weights, in parts of the largest of the layer: noise=0.02       |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lpgen.formats import Format
from lpgen.plans import LayerGroup, Precision
from lpgen.quantize.codes import Codes

WHOLE_BYTES = Precision.parse("w8a8 row")
"""What bits are flipped of where nothing else is said."""

KINDS = ("weights", "layers", "acts", "flips", "noise")


@dataclass(frozen=True)
class Variant:
    """precision: of weights, layers and acts, and of the stored weights of flips; amount: the rate
    of flips, the size of noise."""

    kind: str
    precision: Precision | None = None
    amount: float = 0.0

    def __str__(self) -> str:
        """w4, layers=3, planes=3, a6 row, flips=0.001, flips=0.001 w4a8 row, noise=0.02"""
        p = self.precision
        if self.kind == "noise":
            return f"noise={self.amount:g}"
        if self.kind == "flips":
            return f"flips={self.amount:g}" + (f" {p}" if p != WHOLE_BYTES else "")
        words = [f"hadamard={p.hadamard}"] if p.hadamard else []
        if self.kind == "acts":
            usual = "u" if p.scales == "static" else "s"
            words += [f"act={p.act}"] if p.act.encoding != usual else []
            return " ".join([f"a{p.act.bits} {p.scales}", *words])
        words = [f"weight_group={p.weight_group}", *words] if p.weight_group else words
        layers = f"{'planes' if p.weight.bits == 1 else 'layers'}={p.bit_layers}"
        first = layers if self.kind == "layers" else f"w{p.weight.bits}"
        return " ".join([first, *words])


def parts_of(precision: Precision) -> tuple[Variant, Variant]:
    """The two variants whose losses add up to that of a precision: weights, and activations."""
    kind = "layers" if precision.bit_layers else "weights"
    scales = "row" if precision.scales == "static" else precision.scales
    weights = replace(precision, act=Format("s", 8), scales=scales)
    acts = replace(precision, weight=Format("s", 8), weight_group=0, bit_layers=0)
    return Variant(kind, weights), Variant("acts", acts)


@dataclass(frozen=True)
class Amounts:
    """What is tried of each kind: bits, numbers of layers, rates, sizes; stored: bits of the
    weights that are flipped; hadamard: the block with which few bits are tried as well, 0: not."""

    weights: Sequence[int] = (2, 3, 4, 5, 6, 8)
    layers: Sequence[int] = (2, 3, 4, 6, 8)
    acts: Sequence[int] = (4, 5, 6, 8)
    flips: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2)
    noise: Sequence[float] = (0.01, 0.02, 0.05, 0.1)
    stored: int = 8
    hadamard: int = 0

    def of(self, group: LayerGroup) -> Iterator[Variant]:
        """The variants of a group: those that some kernel has."""
        convolution = any(layer.kind == "Conv" for layer in group.layers)
        scales = "static" if convolution else "row"
        blocks = [0] if convolution or not self.hadamard else [0, self.hadamard]
        found = []
        for block in blocks:
            for bits in self.weights:
                found.append(Variant("weights", Precision.parse(f"w{bits}a8 row hadamard={block}")))
            for bits in self.acts:
                words = f"w8a{bits} {scales}" + (f" hadamard={block}" if block else "")
                found.append(Variant("acts", Precision.parse(words)))
        for count in self.layers:
            found.append(Variant("layers", Precision.parse(f"w8a8 row bit_layers={count}")))
        stored = Precision.parse(f"w{self.stored}a8 row")
        found += [Variant("flips", stored, rate) for rate in self.flips]
        found += [Variant("noise", None, size) for size in self.noise]
        return (v for v in found if not v.precision or group_has(group, v.precision))


def group_has(group: LayerGroup, precision: Precision) -> bool:
    """Whether blocks of a precision divide every k of a group."""
    sizes = [size for size in (precision.hadamard, precision.act_group) if size]
    return all(layer.k % size == 0 for layer in group.layers for size in sizes)


def flipped(codes: Codes, rate: float, rng: np.random.Generator) -> Codes:
    """Codes of which each stored bit is flipped with a probability. A value is stored as its place
    among those of the format: the smallest is 0."""
    return replace(codes, codes=flipped_values(codes.codes, codes.form, rate, rng))


def flipped_values(
    values: np.ndarray, form: Format, rate: float, rng: np.random.Generator
) -> np.ndarray:
    """The same of values of a format, int8."""
    places = (values.astype(np.int16) - form.min).ravel()
    count = rng.binomial(places.size * form.bits, rate)
    hit = rng.choice(places.size * form.bits, count, replace=False) if count else np.zeros(0, int)
    np.bitwise_xor.at(places, hit // form.bits, (1 << (hit % form.bits)).astype(np.int16))
    return (places + form.min).astype(np.int8).reshape(values.shape)


def noisy(w: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """Weights with normal noise whose standard deviation is `size` times the largest of them."""
    noise = rng.normal(size=w.shape).astype(np.float32)
    return w + np.float32(size * np.abs(w).max(initial=0)) * noise
