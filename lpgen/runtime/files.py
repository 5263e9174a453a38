"""From the path of a library to its module and its manifest; bad files are one line each.

A library carries a SHA-256 of its contents as its build id (a note that `readelf -n` shows): that
of the file with zeros in the place of the hash. It is compared before any of the file is run. What
is run is a copy in memory of the bytes that were compared, so that the file may be replaced or
overwritten at any time.
"""

import contextlib
import hashlib
import itertools
import json
import os
import platform
import stat
import struct
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import tvm_ffi

from lpgen.errors import LibraryError
from lpgen.runtime.pages import in_huge_pages

SCHEMA = 5
"""The version of the manifest that this package reads."""

HASH_BYTES = 32
# ELF's number of an architecture (e_machine) -> its name, and what `platform.machine()` calls it.
_MACHINES = {
    3: ("x86", ("i386", "i686")),
    40: ("32-bit Arm", ("armv7l", "armv8l")),
    62: ("x86-64", ("x86_64", "amd64")),
    183: ("64-bit Arm", ("aarch64", "arm64")),
    243: ("RISC-V", ("riscv64",)),
}
# The head of the note: sizes of the owner's name and of the hash, NT_GNU_BUILD_ID, the owner.
_NOTE = struct.pack("<3I4s", 4, HASH_BYTES, 3, b"GNU")
_NAME_LIMIT = 200  # of the 249 bytes that a memory file's name may have


class Code:
    """The code of a library in this process: unloaded when nobody holds it any more.

    key: the SHA-256 of the file, and the target whose kernels are in use, as it was asked for.
    """

    def __init__(self, path: Path, data: bytes, key: tuple[bytes, str]) -> None:
        self.key = key
        self._module = load_module(path, data, next(_fresh))
        # It has read LPGEN_TARGET itself. What it refuses now it refuses at every call.
        if key[1] != asked_by_environment():
            with contextlib.suppress(AttributeError, RuntimeError):
                self.get_function("lpgen_set_target")(as_text(key[1]))

    @classmethod
    def of(cls, path: Path, target: str) -> "Code":
        """The code in the file, shared by all who load the same contents for the same target.

        Raises LibraryError when the file is no whole, unchanged library.
        """
        data = _read(path)
        key = _checked_digest(path, data), target
        with _lock:
            code = _loaded.get(key)
            if code is None:
                code = _loaded[key] = cls(path, data, key)
            return code

    def get_function(self, name: str) -> Any:
        """The tvm-ffi function of that name; AttributeError where there is none."""
        return self._module.get_function(name)


_loaded: weakref.WeakValueDictionary[tuple[bytes, str], Code] = weakref.WeakValueDictionary()
_lock = threading.Lock()
_fresh = itertools.count(1)


def asked_by_environment() -> str:
    """The target that LPGEN_TARGET names, "": the best."""
    return os.environ.get("LPGEN_TARGET", "")


def as_text(value: str | os.PathLike[str]) -> Any:
    """A text as functions of a library take it: uint8[n] that ends in 0."""
    return tvm_ffi.from_dlpack(np.frombuffer(os.fsencode(value) + b"\0", np.uint8).copy())


def find_hash(data: bytes) -> int | None:
    """Where in a library the hash of its contents is, None: it carries none."""
    at = data.find(_NOTE)
    return None if at < 0 else at + len(_NOTE)


def hash_of(data: bytes, place: int) -> bytes:
    """The hash that belongs at `place` in a library."""
    view = memoryview(data)
    found = hashlib.sha256(view[:place])
    found.update(bytes(HASH_BYTES))
    found.update(view[place + HASH_BYTES :])
    return found.digest()


def read_manifest(path: Path, code: Code) -> dict[str, Any]:
    """The manifest inside; LibraryError when there is none, or of another version."""
    try:
        text = code.get_function("lpgen_manifest")()
    except AttributeError:
        raise LibraryError(f"{path}: is not an lpgen library (it has no manifest)") from None
    try:
        manifest = json.loads(text)
        schema = manifest["schema"]
    except (ValueError, KeyError, TypeError):
        raise LibraryError(f"{path}: its manifest is damaged") from None
    if schema != SCHEMA:
        raise LibraryError(f"{path}: has manifest schema {schema}, this lpgen reads {SCHEMA}")
    return manifest


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise LibraryError(f"{path}: is not a regular file")  # opening a pipe may block
        return path.read_bytes()
    except OSError as error:
        raise LibraryError(f"{path}: {error.strerror}") from None


def _checked_digest(path: Path, data: bytes) -> bytes:
    """The hash of the contents; LibraryError unless they are a whole 64-bit ELF file for this
    machine that carries it."""
    if len(data) < 64 or data[:4] != b"\x7fELF":
        raise LibraryError(f"{path}: is not a library (no ELF file)")
    _check_machine(path, data)
    if data[4:6] != b"\x02\x01":
        raise LibraryError(f"{path}: is not a library (no little-endian 64-bit ELF file)")
    # e_shoff, e_shentsize, e_shnum: the section headers are the end of the file.
    (sections,) = struct.unpack_from("<Q", data, 40)
    entry, count = struct.unpack_from("<HH", data, 58)
    if sections + entry * count > len(data):
        raise LibraryError(f"{path}: is cut off at {len(data)} bytes")
    place = find_hash(data)
    if place is None:
        raise LibraryError(f"{path}: is not an lpgen library (it carries no SHA-256 of itself)")
    digest = hash_of(data, place)
    if data[place : place + HASH_BYTES] != digest:
        raise LibraryError(
            f"{path}: is damaged, or was changed after it was built (as by strip): "
            "its contents have another SHA-256 than it carries"
        )
    return digest


def _check_machine(path: Path, data: bytes) -> None:
    """LibraryError, naming both, when an ELF file is for another architecture than this one."""
    name, here = machine_of(data), this_machine()
    if name != here:
        raise LibraryError(f"{path}: was built for {name}, this machine is {here}")


def machine_of(data: bytes) -> str:
    """The architecture that an ELF file is for; "" of anything else."""
    if len(data) < 64 or data[:4] != b"\x7fELF":
        return ""
    number = int.from_bytes(data[18:20], "little" if data[5] == 1 else "big")
    return _MACHINES.get(number, (f"ELF machine {number}", ()))[0]


def this_machine() -> str:
    """The architecture of this machine."""
    return machine_called(platform.machine())


def machine_called(name: str) -> str:
    """The architecture of a machine that its system calls `name`."""
    known = (called for called, spellings in _MACHINES.values() if name.lower() in spellings)
    return next(known, name)


def load_module(path: Path, data: bytes, number: int) -> Any:
    """The tvm-ffi module in `data`; number: another one at each call."""
    load = tvm_ffi.get_global_func("ffi.Module.load_from_file.so")
    try:
        file = os.memfd_create(os.fsencode(path.name)[:_NAME_LIMIT])
        try:
            with open(file, "wb", closefd=False) as copy:
                copy.write(data)
            in_huge_pages(file, len(data))
            # The loader compares names, and file numbers come again: the bits of `number`, as ways
            # to write a slash, tell the names apart.
            slashes = "".join("//" if bit == "1" else "/." for bit in f"{number:b}")
            return load(f"/proc/self/fd{slashes}/{file}", "so")
        finally:
            os.close(file)
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].rpartition(": ")[2]
        raise LibraryError(f"{path}: cannot be loaded: {reason}") from None
