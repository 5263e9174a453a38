"""How fields of operators are written in a workload, and read from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lpgen.formats import Format

# Sizes and indices are int32 in the generated code.
MAX_ELEMENTS = 2**31 - 1


class Word(NamedTuple):
    """How a field of an operator is written in a workload: value from text, and text from value;
    quiet: the canonical text leaves it out where it has its default."""

    read: Callable[[str], Any]
    write: Callable[[Any], str]
    quiet: bool = False


def read_number(text: str) -> int:
    """The number written as `text`; ValueError with the reason if it is none."""
    if not re.fullmatch(r"-?[0-9]+", text):
        raise ValueError(f"{text!r} is not a number")
    if len(text) > 18:
        raise ValueError(f"{text[:12]}... is above the limit {MAX_ELEMENTS}")
    return int(text)


def one_of(*known: str) -> Callable[[str], str]:
    """The function that reads one of the words; ValueError for another one."""

    def read(text: str) -> str:
        if text not in known:
            raise ValueError(f"{text!r} is none of {', '.join(known)}")
        return text

    return read


def _read_numbers(text: str) -> tuple[int, ...]:
    return tuple(read_number(part) for part in text.split("x"))


def as_pair(value: int | Sequence[int]) -> tuple[int, ...]:
    """(height, width) from one number for both, or from the pair itself; else ValueError."""
    pair = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(pair) not in (1, 2):
        raise ValueError(f"{len(pair)} numbers, expected 1 or 2")
    return pair * 2 if len(pair) == 1 else pair


def as_edges(value: int | Sequence[int]) -> tuple[int, ...]:
    """(top, left, bottom, right) from one number, (height, width), or the four; else ValueError."""
    edges = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(edges) not in (1, 2, 4):
        raise ValueError(f"{len(edges)} numbers, expected 1, 2 or 4")
    return edges * (4 // len(edges))


def _write_pair(pair: tuple[int, ...]) -> str:
    return "x".join(map(str, pair[:1] if pair[0] == pair[1] else pair))


def _write_edges(edges: tuple[int, ...]) -> str:
    return _write_pair(edges[:2]) if edges[:2] == edges[2:] else "x".join(map(str, edges))


NUMBER = Word(read_number, str)
KERNEL = Word(lambda text: as_pair(_read_numbers(text)), lambda pair: "x".join(map(str, pair)))
PAIR = Word(lambda text: as_pair(_read_numbers(text)), _write_pair)
EDGES = Word(lambda text: as_edges(_read_numbers(text)), _write_edges)
FORMAT = Word(Format.parse, str)
COUNT = Word(read_number, str, quiet=True)
ZERO = Word(read_number, str, quiet=True)
ZERO_OR_SHARED = Word(
    lambda text: text if text in ("channel", "group") else read_number(text), str, quiet=True
)
