"""Header of packed weights, as packed.c has it: of those that are packed at compile time."""

from __future__ import annotations

import struct

import numpy as np

from lpgen.build.choice import PACKED_HEADER, Variant

_VERSION = 2
_FIELDS = struct.Struct("<8sQQQ16sQQ")
"""Magic, version, identity of the kernel, bytes of the data, level, checksum, zeros."""


def with_header(variant: Variant, data: np.ndarray) -> np.ndarray:
    """Packed weights (uint8[n], as `Layout.pack` makes them) as the variant's function takes them.

    The checksum is 0: the library's own hash covers what lies in it.
    """
    level = variant.choice.target.level.encode()[:15]
    head = _FIELDS.pack(b"lpgen-w", _VERSION, variant.identity, data.size, level, 0, 0)
    assert len(head) == PACKED_HEADER
    return np.concatenate([np.frombuffer(head, np.uint8), data])
