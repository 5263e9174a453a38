"""Where the constants of a network are: in its library, or in a file beside it that is mapped."""

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from lpgen.errors import LibraryError
from lpgen.runtime.ecc import corrected_file
from lpgen.runtime.files import Code, as_text

_HEADER = struct.Struct("<24s32s8x")
"""Of a file of weights: what weights.c compares, and the SHA-256 of what is behind it."""


class Constants:
    """The constants of the network `name`, which all its versions share.

    path: the file that they lie in, None: the library itself; checks: the file with check bytes for
    these, None: there are none. corrected_words: how many words of 8 bytes had a wrong bit, None:
    nothing was read.
    """

    def __init__(self, code: Code, name: str, path: Path | None, checks: Path | None) -> None:
        self._code, self._name = code, name
        self._path, self._checks = path, checks
        self._mapped = path is None
        self.corrected_words: int | None = None

    def map(self) -> None:
        """Map the file, if there is one and this was not done. Raises LibraryError unless it is
        whole and unchanged."""
        if self._mapped:
            return
        path = self._path
        try:
            with path.open("rb") as file:
                head = file.read(_HEADER.size)
                digest = hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise LibraryError(f"{path}: {error.strerror}; it holds the weights") from None
        damaged = len(head) < _HEADER.size or _HEADER.unpack(head)[1] != digest
        if damaged and self._checks is None:
            raise LibraryError(f"{path}: is damaged, or no file of weights")
        with contextlib.ExitStack() as stack:
            mapped = stack.enter_context(self._right(path)) if damaged else path
            try:
                self._code.get_function(f"{self._name}_map_weights")(as_text(mapped))
            except RuntimeError:
                raise LibraryError(f"{path}: holds the weights of another library") from None
        self.corrected_words = self.corrected_words or 0
        self._mapped = True

    @contextlib.contextmanager
    def _right(self, path: Path) -> Iterator[Path]:
        """A copy of a file of weights with what its check bytes set right; what goes without them
        may have errors. Raises LibraryError where a word has more than one."""
        data, self.corrected_words = corrected_file(path, self._checks)
        descriptor = os.memfd_create("lpgen-weights", os.MFD_CLOEXEC)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            yield Path(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
