"""Precision: what the weights and the input of a layer are quantized to.

| key          | values                                                                       |
|--------------|------------------------------------------------------------------------------|
| weight       | s2..s8, or float: the layer is not quantized, and there is nothing else; b1:  |
|              | planes of signs, which need bit_layers                                        |
| weight_group | neighbours along k that share a scale; left out: one for each output channel  |
| act          | u1..u8, s2..s8                                                                |
| scales       | of the input: static (found once, from data), row (in each call, one for each |
|              | row), groupN (in each call, one for each N neighbours along k)                |
| hadamard     | size of the blocks along k that are transformed before the input is quantized |
| bit_layers   | the weights, s8 or b1, are stored as bit layers, of which a call uses so many |

As one text: "w4a8 row", "w4a8 static", "w4a8 row weight_group=64 hadamard=128", "float". Without
`act=` the input has u8 where its scale is static, and s8 elsewhere.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lpgen.errors import FormatError, PlanError
from lpgen.formats import Format
from lpgen.ops.hadamard import BLOCKS
from lpgen.ops.layers import MOST_PLANES

_SIGNED = tuple(f"s{bits}" for bits in range(2, 9))
WEIGHTS = (*_SIGNED, "b1")
ACTIVATIONS = (*(f"u{bits}" for bits in range(1, 9)), *_SIGNED)
SCALES = ("static", "row", "group32", "group64", "group128")
_NUMBERS = ("weight_group", "hadamard", "bit_layers")
KEYS = ("weight", "weight_group", "act", "scales", "hadamard", "bit_layers")


@dataclass(frozen=True)
class Precision:
    """Formats of a layer; weight: None for one that stays float, which has nothing else.

    weight_group, hadamard, bit_layers: 0 where there are none. Raises PlanError for what no kernel
    has, in one line.
    """

    weight: Format | None
    act: Format | None = None
    scales: str = "row"
    weight_group: int = 0
    hadamard: int = 0
    bit_layers: int = 0

    def __post_init__(self) -> None:
        if self.weight is None:
            return
        _check_one("weight", str(self.weight), WEIGHTS)
        if self.act is None:
            act = Format("u" if self.scales == "static" else "s", 8)
            object.__setattr__(self, "act", act)
        _check_one("act", str(self.act), ACTIVATIONS)
        _check_one("scales", self.scales, SCALES)
        if self.scales != "static" and self.act.encoding == "u":
            raise PlanError(f"act {self.act} goes with static scales, not with {self.scales}")
        block = self.hadamard
        if block and block not in BLOCKS:
            raise PlanError(f"hadamard is {block}, expected one of {', '.join(map(str, BLOCKS))}")
        if block and self.scales == "static":
            raise PlanError(f"hadamard={block} needs scales found in each call, not static")
        most = MOST_PLANES if str(self.weight) == "b1" else 8
        if self.bit_layers > most:
            raise PlanError(f"bit_layers is {self.bit_layers}, the limit is {most}")

    @classmethod
    def parse(cls, text: str) -> Precision:
        """The precision written as `text`. Raises PlanError when there is none."""
        first, *words = text.split() or [""]
        if first == "float" and not words:
            return FLOAT
        bits = re.fullmatch(r"w([0-9])a([0-9])", first)
        if not bits:
            raise PlanError(f"{text!r} is no precision, such as w4a8, w4a8 static or float")
        weight = "b1" if bits[1] == "1" else f"s{bits[1]}"
        values: dict[str, Any] = {"weight": weight, "scales": "row"}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                key, value = "scales", word
            values[key] = int(value) if key in _NUMBERS and value.isdigit() else value
        values.setdefault("act", f"{'u' if values['scales'] == 'static' else 's'}{bits[2]}")
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Precision:
        """A precision from values by their keys, as a plan's file has them. Raises PlanError."""
        for key in values:
            _check_one("key", key, KEYS)
        weight = values.get("weight")
        if weight is None:
            raise PlanError("weight is missing: s2..s8 or float")
        if weight == "float":
            if extra := [key for key in values if key != "weight"]:
                raise PlanError(f"{extra[0]} goes with quantized weights, and weight is float")
            return FLOAT
        given = {key: _number(key, values[key]) for key in _NUMBERS if key in values}
        for key in ("weight", "act"):
            if key in values:
                given[key] = _format(key, values[key])
        if "scales" in values:
            given["scales"] = values["scales"]
        return cls(**given)

    def values(self) -> dict[str, Any]:
        """What `from_values` takes: what differs from the default, and the formats."""
        if self.weight is None:
            return {"weight": "float"}
        found: dict[str, Any] = {"weight": str(self.weight)}
        if self.weight_group:
            found["weight_group"] = self.weight_group
        found |= {"act": str(self.act), "scales": self.scales}
        return found | {key: getattr(self, key) for key in _NUMBERS[1:] if getattr(self, key)}

    def __str__(self) -> str:
        """w4a8 row weight_group=64"""
        if self.weight is None:
            return "float"
        words = [f"w{self.weight.bits}a{self.act.bits}", self.scales]
        if self.act.encoding != ("u" if self.scales == "static" else "s"):
            words.append(f"act={self.act}")
        words += [f"{key}={getattr(self, key)}" for key in _NUMBERS if getattr(self, key)]
        return " ".join(words)

    @property
    def bits(self) -> int:
        """Bits of a weight that a call reads."""
        return 32 if self.weight is None else self.bit_layers or self.weight.bits

    @property
    def act_group(self) -> int:
        """Neighbours along k whose activations share a scale; 0: all of a row or a tensor do."""
        return int(self.scales.removeprefix("group")) if self.scales.startswith("group") else 0


FLOAT = Precision(None)
"""Of a layer that is not quantized."""


def nearest(name: str, known: Any) -> str:
    """What to say behind a name that is not there: the nearest ones, else how many there are."""
    near = difflib.get_close_matches(str(name)[:200], list(known), n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(list(known)[:8])}"


def _check_one(key: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise PlanError(f"{key} {value!r} is unknown; {nearest(value, known)}")


def _number(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PlanError(f"{key} is {value!r}, expected a number from 0")
    return value


def _format(key: str, value: Any) -> Format:
    _check_one(key, value, (*WEIGHTS, "float") if key == "weight" else ACTIVATIONS)
    try:
        return Format.parse(value)
    except FormatError as error:
        raise PlanError(f"{key}: {error}") from None
