"""Scale: from the int32 sum to a real number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpgen.ops.epilogue.step import Chain, Given, Place, Readers, Step, Sums, find
from lpgen.ops.parameter import Parameter, real
from lpgen.ops.scales import SMALLEST_GROUP
from lpgen.ops.words import one_of

_GROUP = re.compile(r"group([1-9][0-9]{0,8})(:bf16)?")
_read_plain = one_of("none", "tensor", "channel", "thresholds")


def _read(text: str) -> str:
    return text if text.startswith("group") else _read_plain(text)  # `check` looks at the group


@dataclass(frozen=True)
class Scale(Step):
    """Multiplies by one number, per="tensor", by one for each output channel, per="channel", or the
    sums of groups of so many neighbours in k by one for each, per="group32" or "group32:bf16"."""

    per: str = "tensor"
    place: ClassVar[Place] = Place.SCALE

    READ: ClassVar[Readers] = {"scale": _read}

    @property
    def group_size(self) -> int:
        """Neighbours in k that share a scale, 0: all."""
        match = _GROUP.fullmatch(str(self.per))
        return int(match[1]) if match else 0

    @property
    def short(self) -> bool:
        """Whether the scales are bfloat16."""
        return str(self.per).endswith(":bf16")

    def check(self) -> str | None:
        if self.per in ("tensor", "channel") or self.group_size >= SMALLEST_GROUP:
            return None
        if self.group_size:
            return f"scale={self.per}: a group has {SMALLEST_GROUP} neighbours in k or more"
        return f"scale={self.per} is unknown; known: tensor, channel, groupN, groupN:bf16"

    def words(self) -> dict[str, str]:
        return {"scale": self.per}

    def parameters(self, chain: Chain, sums: Sums) -> dict[str, Parameter]:
        shape = (1,) if self.per == "tensor" else sums.grouped
        return {"scale": real(*shape, short=self.short)}

    def apply(self, v: np.ndarray, chain: Chain, given: Given) -> np.ndarray:
        """With groups v is float32, what they add up to."""
        v = v if self.group_size else v.astype(np.float32) * given.parameters["scale"]
        return v if given.input_step is None else v * given.input_step


def group_size_of(chain: Chain) -> int:
    """Neighbours in k that share a scale, 0: all."""
    scale = find(chain, Scale)
    return scale.group_size if scale else 0
