"""Emulators of CPUs (qemu-user): a process that calls functions of a library on such a CPU.

A small program for the CPU (emulated.c) loads the library and does as it is told through a pipe;
what the CPU lacks is an illegal instruction there, as on the CPU itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpgen import supervise
from lpgen.build import toolchain
from lpgen.errors import LibraryError
from lpgen.target import ARCHITECTURES, Target

NUMBER, GIVEN, WANTED, SCRATCH, TEXT, BOTH, LIST = range(7)
MOST_ARGUMENTS = 96
DRIVER = "emulated.c"
_ELF_CLASS = 4
"""Where a library says whether its addresses have 32 bits or 64."""


class Passed(NamedTuple):
    """An argument of a call: its kind and its value, a number, an array or a size in bytes, and
    how many bytes behind a 64-byte boundary it starts. Of a LIST the value is how many of those
    behind it are in the array whose address is passed."""

    kind: int
    value: Any
    offset: int = 0

    def message(self) -> bytes:
        """As the driver reads it."""
        if self.kind not in (GIVEN, BOTH):
            return struct.pack("<IIq", self.kind, self.offset, int(self.value))
        data = np.ascontiguousarray(self.value).tobytes()
        return struct.pack("<IIq", self.kind, self.offset, len(data)) + data

    @property
    def nbytes(self) -> int:
        """Bytes of what is wanted, 0 for what is not."""
        wanted = {WANTED: self.value, BOTH: getattr(self.value, "nbytes", 0)}
        return int(wanted.get(self.kind, 0))


class Crashed(Exception):
    """The emulator ended in the middle of a call; the message says how."""


class Emulator:
    """A process that runs functions of a library on the CPU `target`. folder: for its program;
    asked: what LPGEN_TARGET is there."""

    def __init__(self, library: Path, target: Target, folder: Path, asked: str = "") -> None:
        self.command = [*emulator_of(target), str(_driver(target, folder)), str(library)]
        self.address_bytes = {1: 4, 2: 8}[library.read_bytes()[_ELF_CLASS]]
        self._environment = os.environ | ({"LPGEN_TARGET": asked} if asked else {})
        self._process: subprocess.Popen | None = None
        self._said = tempfile.TemporaryFile()

    def call(self, name: str, arguments: Sequence[Passed]) -> tuple[int, list[bytes]]:
        """The int32 that a function returns, and what it writes to the WANTED arguments, and BOTH.

        Raises Crashed when that ends the emulator; the next call starts another.
        """
        process = self._ask(name, arguments)
        (status,) = struct.unpack("<q", self._read(process, 8))
        wanted = [a.nbytes for a in arguments if a.kind in (WANTED, BOTH)]
        return status, [self._read(process, nbytes) for nbytes in wanted]

    def checked(self, name: str, arguments: Sequence[Passed]) -> list[bytes]:
        """What a function writes. Raises LibraryError for a status that is not 0."""
        try:
            status, wanted = self.call(name, arguments)
        except Crashed as error:
            raise LibraryError(str(error)) from None
        if status != 0:
            raise LibraryError(f"{name} returned status {status}")
        return wanted

    def text(self, name: str) -> str:
        """The text that a function of no arguments returns, "" for NULL."""
        process = self._ask(name, [Passed(TEXT, 0)])
        (length,) = struct.unpack("<q", self._read(process, 8))
        return self._read(process, length).decode()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _ask(self, name: str, arguments: Sequence[Passed]) -> subprocess.Popen:
        if len(arguments) > MOST_ARGUMENTS:
            raise LibraryError(
                f"{name}: has {len(arguments)} arguments, emulated calls {MOST_ARGUMENTS}"
            )
        if self._process is None:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", 'ulimit -c 0; exec "$@"', "sh", *self.command],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
            )
        head = struct.pack("<I", len(name)) + name.encode() + struct.pack("<I", len(arguments))
        try:
            self._process.stdin.write(head + b"".join(a.message() for a in arguments))
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._crashed() from None
        return self._process

    def _read(self, process: subprocess.Popen, count: int) -> bytes:
        data = process.stdout.read(count)
        if len(data) < count:
            raise self._crashed()
        return data

    def _crashed(self) -> Crashed:
        process, self._process = self._process, None
        process.stdin = None  # what is left in its buffer has no reader
        process.communicate()
        code = process.returncode
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        self._said.truncate(0)
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        illegal = " (an instruction that the CPU lacks)" if code == -signal.SIGILL else ""
        error = next((f": {line[:200]}" for line in lines if "error" in line), "")
        return Crashed(f"crashed: {how}{illegal}{error}")


def emulator_of(target: Target) -> list[str]:
    """The command in front of a program for the target's CPU.

    Raises LibraryError where there is no emulator of it, or no C library of its architecture.
    """
    name = ARCHITECTURES[target.architecture].emulator
    if not name or not target.emulated:
        raise LibraryError(f"target {target.name} has no emulator that lpgen knows")
    program = next(filter(None, map(shutil.which, (name, f"{name}-static"))), None)
    if program is None:
        raise LibraryError(f"{name} is not installed (Debian: qemu-user), which runs {target.name}")
    if reason := _unknown(program, target.emulated):
        raise LibraryError(f"{program} does not emulate {target.name}: {reason}")
    root = toolchain.sysroot(target)
    if root is None:
        raise LibraryError(
            f"no C library of {target.triple} in /usr/{target.triple}/lib (Debian: "
            "libc6-dev-arm64-cross and the like); QEMU_LD_PREFIX names another folder"
        )
    return [program, "-cpu", target.emulated, "-L", str(root)]


@cache
def _unknown(program: str, cpu: str) -> str:
    """Why an emulator refuses a CPU, "" if it does not: it may be older than an extension."""
    asked = [program, "-cpu", cpu, os.devnull]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stderr
    return next((line.partition(": ")[2] for line in said.splitlines() if "apply" in line), "")


def _driver(target: Target, folder: Path) -> Path:
    """The program that calls the library, compiled for the target."""
    source, program = folder / DRIVER, folder / "driver"
    source.write_text((resources.files("lpgen.build") / DRIVER).read_text(encoding="utf-8"))
    command = [*toolchain.compiler_of(target), "-std=gnu11", "-O1", DRIVER, "-o", "driver", "-ldl"]
    status, said = supervise.run(command, folder)
    if status != 0:
        raise LibraryError(f"the C compiler {command[0]} failed: {said.strip()[:300]}")
    return program
