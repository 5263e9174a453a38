"""What a library may hold beside its kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lpgen.build.choice import Exported


@dataclass(frozen=True)
class Part:
    """Something that is built on the kernels of a library.

    source: C text behind their descriptions (`struct kernel`, SYMBOL_kernel); header: text behind
    their declarations; manifest: entries beside "kernels"; exports: patterns of the names that are
    public. Each written by a function that is given its path: files: what the C text includes, by
    name; beside: what lies beside the library, by suffix.
    """

    source: str
    header: str
    manifest: Mapping[str, Any]
    exports: Sequence[str]
    files: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)
    beside: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


def joined(parts: Sequence[Part], manifest: Mapping[str, Any]) -> Part:
    """Parts of one library, with a manifest of their own."""
    return Part(
        source="".join(part.source for part in parts),
        header="".join(part.header for part in parts),
        manifest=manifest,
        exports=[name for part in parts for name in part.exports],
        files={name: write for part in parts for name, write in part.files.items()},
        beside={suffix: write for part in parts for suffix, write in part.beside.items()},
    )


Builder = Callable[[Sequence[Exported]], Part]
"""What makes a part of kernels that are compiled."""
