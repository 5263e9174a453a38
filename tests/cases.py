"""What is tried of an algorithm: workloads by what they are about, and a strategy of operators."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from strategies import TEXTS, texts

from lpgen.ops import Dense

UNSIGNED = tuple(f"u{bits}" for bits in range(1, 9))
SIGNED = ("b1", *(f"s{bits}" for bits in range(2, 9)))
OTHERS = tuple(text for text in TEXTS if text not in UNSIGNED)
LINEAR = tuple(text for text in TEXTS if text[0] != "c")
"""Formats whose values are sums of bits."""


def dense(m: int, n: int, k: int, act: str = "u8", weight: str = "s8") -> str:
    return f"dense m={m} n={n} k={k} act={act} weight={weight}"


def kinds(shapes: dict[str, str], *formats: str) -> list[list[str]]:
    """A row for every kind of convolution: it with each of the formats."""
    return [[f"conv2d {words} {more}" for more in formats] for words in shapes.values()]


@dataclass(frozen=True)
class Cases:
    """Workloads of an algorithm: `pairs` a text for every pair of `acts` and `weights`, `formats`
    of one format beside a fixed one, `sizes` around the edges of tiles, vectors and steps, and
    `kinds` of convolution or other operators, a row each; `operators` draws any that it may serve,
    `examples` of them by day. Where a format or a kind is what matters, shapes are as small as it
    lets them be."""

    operators: SearchStrategy
    examples: int = 6
    pairs: str = ""
    acts: tuple[str, ...] = UNSIGNED
    weights: tuple[str, ...] = SIGNED
    formats: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    kinds: list[list[str]] = field(default_factory=list)

    def rows(self, section: str) -> list[list[str]]:
        """The workloads of a section, in rows of which a day tries one each."""
        if section == "kinds":
            return self.kinds
        texts, length = getattr(self, section), {"formats": 3, "sizes": 2}[section]
        return [texts[at : at + length] for at in range(0, len(texts), length)]

    def rows_of_pairs(self) -> Iterator[list[str]]:
        """The workloads of each activation format with every weight format."""
        for act in self.acts if self.pairs else ():
            yield [f"{self.pairs} act={act} weight={weight}" for weight in self.weights]

    def texts(self) -> Iterator[str]:
        """All workloads."""
        sections = (self.rows(section) for section in ("sizes", "kinds", "formats"))
        for row in (*chain(*sections), *self.rows_of_pairs()):
            yield from row


def products(m: int, n: int, k: int, act=texts, weight=texts) -> SearchStrategy:
    """Dense operators up to a size."""
    return st.builds(Dense, *(st.integers(1, size) for size in (m, n, k)), act=act, weight=weight)


def one_side(shape: str, act: str, weight: str) -> list[str]:
    """Each format of weights that `SIGNED` lacks beside `act`, and of activations that `UNSIGNED`
    lacks beside `weight`."""
    rest = [text for text in TEXTS if text not in SIGNED]
    return [
        *(f"{shape} act={act} weight={text}" for text in rest),
        *(f"{shape} act={text} weight={weight}" for text in OTHERS),
    ]
