"""Tuning logs: one JSON line for each candidate, append-only.

A line names choices (workload, target, template, knobs), what they measured, and where. The winner
of a race is marked `best`; every other measured candidate is kept too, so that a tuning run can go
on where it stopped. A log may be cut off at any byte, written by two processes, merged by
concatenation and damaged by anything: lines that hold no record are reported and skipped.
"""

import os
import warnings
from functools import cache
from importlib import resources
from pathlib import Path
from typing import BinaryIO, NamedTuple

from filelock import FileLock, Timeout

import lpgen.tuning_logs
from lpgen.errors import RecordError
from lpgen.records.record import MAX_LINE, Record
from lpgen.target import Target

_LOCK_SECONDS = 20.0


class RecordWarning(UserWarning):
    """A line of a tuning log that was skipped, with file, line and reason."""


class Contents(NamedTuple):
    """What a log holds: its records, and one line of text for each line that is none."""

    records: list[Record]
    problems: list[str]


class Log:
    """An append-only file of records."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._read: tuple[tuple, Contents] | None = None
        self._reported: set[str] = set()

    def __repr__(self) -> str:
        return f"Log({str(self.path)!r})"

    def _lock(self) -> FileLock:
        return FileLock(f"{self.path}.lock", timeout=_LOCK_SECONDS)

    def check_writable(self) -> None:
        """Create the log if there is none. Raises RecordError when it could not be written."""
        self._write("")

    def append(self, *records: Record) -> None:
        """Add records, on disk when this returns. Raises RecordError when they cannot be written.

        One write of whole lines under a lock, after whatever another process or a cut-off left.
        """
        self._write("\n".join(record.to_line() for record in records))

    def _require_file(self) -> None:
        """Refuse what is no file: a pipe or a device would block or never end."""
        if not self.path.parent.is_dir():
            # Said here because taking the lock would create the folder.
            raise RecordError(f"log {self.path}: there is no folder {self.path.parent}")
        if self.path.is_dir():
            raise RecordError(f"log {self.path}: is a folder, not a file")
        if self.path.exists() and not self.path.is_file():
            raise RecordError(f"log {self.path}: is not a regular file")

    def _write(self, line: str) -> None:
        try:
            self._require_file()
            with self._lock():
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
                descriptor = os.open(self.path, flags, 0o644)
                try:
                    if line:
                        _append_line(descriptor, line)
                finally:
                    os.close(descriptor)
        except Timeout:
            raise RecordError(
                f"log {self.path}: still locked by another process after {_LOCK_SECONDS:.0f} s"
            ) from None
        except OSError as error:
            raise RecordError(f"log {self.path}: {error.strerror or error}") from None

    def read(self) -> Contents:
        """Everything in the log; a log that does not exist is empty.

        Raises RecordError when there is something that cannot be read, such as a folder.
        """
        try:
            if not self.path.exists():
                return Contents([], [])
            self._require_file()
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                version = (status.st_ino, status.st_size, status.st_mtime_ns)
                if self._read is None or self._read[0] != version:
                    self._read = version, _parse(self.path, file)
        except OSError as error:
            raise RecordError(f"log {self.path}: {error.strerror or error}") from None
        return self._read[1]

    def records(self) -> list[Record]:
        """The records of what was measured, oldest first; each line that is none gives a
        RecordWarning, once."""
        return [record for record in self._all() if record.cycles is None]

    def modelled(self) -> list[Record]:
        """The records of what was only modelled."""
        return [record for record in self._all() if record.cycles is not None]

    def _all(self) -> list[Record]:
        contents = self.read()
        for problem in contents.problems:
            if problem not in self._reported:
                self._reported.add(problem)
                warnings.warn(problem, RecordWarning, stacklevel=2)
        return contents.records


def _append_line(descriptor: int, line: str) -> None:
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    data = f"{chr(10) if torn else ''}{line}\n".encode()
    if os.write(descriptor, data) != len(data):
        raise OSError("the disk is full")
    os.fsync(descriptor)


def _parse(path: Path, file: BinaryIO) -> Contents:
    contents = Contents([], [])
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        complete = line.endswith(b"\n")
        while not complete and (rest := file.readline(1 << 20)):
            complete = rest.endswith(b"\n")
        if not line.strip():
            continue
        try:
            contents.records.append(Record.from_line(line))
        except RecordError as error:
            contents.problems.append(f"{path}:{number}: skipped: {error}")
    return contents


@cache
def shipped() -> tuple[Log, ...]:
    """The logs that are installed with lpgen."""
    folder = Path(str(resources.files(lpgen.tuning_logs)))
    return tuple(Log(path) for path in sorted(folder.glob("*.jsonl")))


def default_log(target: Target) -> Path:
    """The user's log: TARGET.jsonl in $XDG_DATA_HOME/lpgen, by default ~/.local/share/lpgen."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "lpgen" / f"{target.name}.jsonl"
