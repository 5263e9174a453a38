"""Object files of kernels that are kept for the next library."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lpgen.build.choice import Choice
    from lpgen.build.compiler import Compiled


@dataclass
class Objects:
    """Object files in a folder that stays while libraries are built: a kernel that several of them
    have is compiled once."""

    folder: Path
    _known: dict[str, tuple[Path, Compiled]] = field(default_factory=dict)

    def of(self, choice: Choice, compiled: Callable[[Path], Compiled]) -> tuple[Path, Compiled]:
        """The object file of a choice and what the compiler said of it; compiled: writes it."""
        knobs = json.dumps(dict(choice.knobs), sort_keys=True)
        key = f"{choice.op.name} {choice.template} {choice.target.name} {knobs}"
        if key not in self._known:
            path = self.folder / f"{len(self._known)}.o"
            self._known[key] = path, compiled(path)
        return self._known[key]
