"""Libraries for other CPUs, run here by an emulator (qemu-user): one process serves all calls.

`EmulatedLibrary` looks like `lpgen.runtime.Library` to who checks kernels. Calls go through the C
interface of the library, to a small program for its CPU (emulated.c) that loads it; what the CPU
lacks is an illegal instruction there, as on the CPU itself.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpgen import supervise
from lpgen.build import toolchain
from lpgen.errors import LibraryError
from lpgen.runtime.arguments import Argument
from lpgen.target import ARCHITECTURES, Target

NUMBER, GIVEN, WANTED, SCRATCH, TEXT = range(5)
MOST_ARGUMENTS = 48
DRIVER = "emulated.c"


class Passed(NamedTuple):
    """An argument of a call: its kind and its value, a number, an array or a size in bytes, and
    how many bytes behind a 64-byte boundary it starts."""

    kind: int
    value: Any
    offset: int = 0

    def message(self) -> bytes:
        """As the driver reads it."""
        if self.kind != GIVEN:
            return struct.pack("<IIq", self.kind, self.offset, int(self.value))
        data = np.ascontiguousarray(self.value).tobytes()
        return struct.pack("<IIq", self.kind, self.offset, len(data)) + data


class Crashed(Exception):
    """The emulator ended in the middle of a call; the message says how."""


class Emulator:
    """A process that runs functions of a library on the CPU `target`. folder: for its program;
    asked: what LPGEN_TARGET is there."""

    def __init__(self, library: Path, target: Target, folder: Path, asked: str = "") -> None:
        self.command = [*emulator_of(target), str(_driver(target, folder)), str(library)]
        self._environment = os.environ | ({"LPGEN_TARGET": asked} if asked else {})
        self._process: subprocess.Popen | None = None
        self._said = tempfile.TemporaryFile()

    def call(self, name: str, arguments: Sequence[Passed]) -> tuple[int, list[bytes]]:
        """The int32 that a function returns, and what it writes to the WANTED arguments.

        Raises Crashed when that ends the emulator; the next call starts another.
        """
        process = self._ask(name, arguments)
        (status,) = struct.unpack("<q", self._read(process, 8))
        wanted = [a.value for a in arguments if a.kind == WANTED]
        return status, [self._read(process, int(nbytes)) for nbytes in wanted]

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


def manifest_in(data: bytes) -> dict[str, Any] | None:
    """The manifest in the bytes of a library, of any architecture; None: there is none."""
    start = data.find(b'{"schema":')
    end = data.find(b"\0", start)
    try:
        return json.loads(data[start:end]) if 0 <= start < end else None
    except ValueError:
        return None


class EmulatedLibrary:
    """The kernels of a library on the CPU `target`, as far as checking them asks for.

    asked: of several targets that the library was built for the one whose kernels are used.
    """

    def __init__(self, path: Path, target: Target, folder: Path, asked: str = "") -> None:
        self.path, self.target = Path(path).absolute(), target
        self.manifest = manifest_in(self.path.read_bytes())
        self.emulator = Emulator(self.path, target, folder, asked)
        self._entries = {entry["workload"]: entry for entry in self.manifest["kernels"]}

    @property
    def workloads(self) -> list[str]:
        return list(self._entries)

    @cached_property
    def missing(self) -> list[str]:
        """What the CPU lacks for kernels which the library does not run there."""
        return self.emulator.text("lpgen_missing_features").split(", ")

    @cached_property
    def in_use(self) -> list[str]:
        """The target whose kernels the library takes, and those behind it; none: it refuses."""
        names = [row["name"] for row in self.manifest["targets"]]
        used = self.emulator.text("lpgen_target")
        return names[names.index(used) :] if used else []

    def __getitem__(self, name: str) -> EmulatedKernel:
        """The kernel of that name; LibraryError where none is in use."""
        entry = self._entries[name]
        for variant in entry["variants"]:
            if variant["target"] in self.in_use:
                return EmulatedKernel(self.emulator, entry, variant)
        built = ", ".join(variant["target"] for variant in entry["variants"])
        lacking = ", ".join(self.missing)
        raise LibraryError(f"built for {built}; {self.target.name} lacks {lacking}")


class EmulatedKernel:
    """One kernel, called through the C interface."""

    def __init__(self, emulator: Emulator, entry: dict[str, Any], variant: dict[str, Any]) -> None:
        self.emulator, self.symbol, self.variant = emulator, entry["symbol"], variant
        self.arguments = [Argument.of_entry(argument) for argument in entry["arguments"]]
        self.packing = [*([entry["weights"]] if entry["weights"] else []), *entry["parameters"]]
        (self.output,) = (a for a in self.arguments if a.role == "output")

    def pack_weights(self, weights: np.ndarray, **parameters: Any) -> np.ndarray:
        """The packed weights, as bytes."""
        values = [weights, *(parameters[entry["name"]] for entry in self.packing[1:])]
        (nbytes,) = (a.nbytes for a in self.arguments if a.role == "packed")
        passed = []
        for entry, value in zip(self.packing, values, strict=True):
            array = np.ascontiguousarray(value, entry["dtype"])
            passed += [Passed(GIVEN, array), Passed(NUMBER, array.nbytes)]
        wanted = [Passed(WANTED, nbytes), Passed(NUMBER, nbytes)]
        (packed,) = self._call(f"{self.symbol}_pack_weights", [*passed, *wanted])
        return np.frombuffer(packed, np.uint8)

    def __call__(self, *, out: np.ndarray, threads: int = 1, **inputs: Any) -> None:
        """Compute `out`."""
        rows = next((len(inputs[a.name]) for a in self.arguments if a.rows), None)
        passed = []
        for argument in self.arguments:
            value = inputs.get(argument.name, rows)
            if argument.role == "scalar":
                passed.append(Passed(NUMBER, value))
            elif argument.role == "output":
                passed += [Passed(WANTED, out.nbytes, out.itemsize), Passed(NUMBER, out.nbytes)]
            else:
                offset = 0 if argument.role == "packed" else value.itemsize
                passed += [Passed(GIVEN, value, offset), Passed(NUMBER, value.nbytes)]
        sizes: Mapping[str, int] = self.variant["workspace_bytes"]
        nbytes = sizes["serial"] + threads * sizes["per_thread"]
        scratch = [Passed(SCRATCH, nbytes), Passed(NUMBER, nbytes)]
        (y,) = self._call(self.symbol, [*passed, *scratch, Passed(NUMBER, threads)])
        out[...] = np.frombuffer(y, out.dtype).reshape(out.shape)

    def _call(self, name: str, arguments: Sequence[Passed]) -> list[bytes]:
        """What a function writes. Raises LibraryError for a status that is not 0."""
        try:
            status, wanted = self.emulator.call(name, arguments)
        except Crashed as error:
            raise LibraryError(str(error)) from None
        if status != 0:
            raise LibraryError(f"{name} returned status {status}")
        return wanted
