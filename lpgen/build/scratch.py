"""Folders for files on their way, which no process leaves for good, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".lpgen-scratch-"


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """An empty folder in `parent`, by default where temporary files are, removed in the end.

    It is locked as long as it is in use. A process that is killed leaves its folder, but no lock:
    such ones are removed here first. Raises OSError where no folder can be made.
    """
    parent = Path(tempfile.gettempdir() if parent is None else parent)
    for abandoned in _unlocked(parent):
        shutil.rmtree(abandoned, ignore_errors=True)
    # Named before it is there: an interrupt may come at any moment.
    folder, lock = parent / f"{PREFIX}{secrets.token_hex(8)}", None
    try:
        lock = _locked(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int:
    """Make the folder; the open file whose lock is on it."""
    while True:
        os.mkdir(folder, 0o700)
        with contextlib.suppress(FileNotFoundError):  # removed as abandoned before it was locked
            lock = os.open(folder, os.O_RDONLY)
            with contextlib.suppress(OSError):  # no locks there: nobody takes it for abandoned
                fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                return lock
            os.close(lock)


def _unlocked(parent: Path) -> Iterator[Path]:
    """Folders of processes that are gone, each locked while it is the current one."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield folder
            finally:
                os.close(lock)
