"""Journal: results one by one, a line each, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lpgen.errors import RecordError


class Journal:
    """An append-only file of JSON lines: {"of": what was measured, "key": ..., ...values}.

    of: lines of another model, other data or settings are those of another `of`, and stay. path:
    None: nothing is kept. A line that is cut off or damaged counts as missing.
    """

    def __init__(self, path: str | os.PathLike[str] | None, of: str) -> None:
        self.path, self.of = path and Path(path), of
        self.known: dict[str, dict[str, Any]] = {}
        for line in self._lines():
            try:
                entry = json.loads(line)
                if entry.pop("of") == of:
                    self.known[entry.pop("key")] = entry
            except (ValueError, KeyError, AttributeError):
                continue

    def _lines(self) -> list[str]:
        if self.path is None or not self.path.exists():
            return []
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise RecordError(f"journal {self.path}: {error.strerror}") from None

    def add(self, key: str, values: Mapping[str, Any]) -> None:
        """Keep values, on disk when this returns. Raises RecordError where they cannot be."""
        self.known[key] = dict(values)
        if self.path is None:
            return
        line = json.dumps({"of": self.of, "key": key, **values})
        try:
            with open(self.path, "a+b") as file:
                torn = file.seek(0, os.SEEK_END) and _last_byte(file) != b"\n"
                file.write(f"{chr(10) if torn else ''}{line}\n".encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RecordError(f"journal {self.path}: {error.strerror}") from None


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def digest(*parts: bytes | str | Sequence[Mapping[str, np.ndarray]]) -> str:
    """A name for bytes, texts and calls: 16 hexadecimal digits."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str | bytes):
            found.update(part.encode() if isinstance(part, str) else part)
        else:
            for call in part:
                for name, array in sorted(call.items()):
                    found.update(f"{name} {array.dtype} {array.shape}".encode())
                    found.update(np.ascontiguousarray(array).tobytes())
        found.update(b"\0")
    return found.hexdigest()[:16]
