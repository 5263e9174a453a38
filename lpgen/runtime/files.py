"""From the path of a library to its module and its manifest; bad files are one line each."""

import itertools
import json
import os
import struct
from pathlib import Path
from typing import Any

import tvm_ffi

from lpgen.errors import LibraryError

SCHEMA = 2
"""The version of the manifest that this package reads."""

_EM_X86_64 = 62
_fresh = itertools.count(1)


def open_module(path: Path) -> Any:
    """The tvm-ffi module in the file; LibraryError when it is no whole shared library."""
    _check_file(path)
    # A path that was loaded before gives the old library, even if the file is another one by now:
    # the loader compares names. This one it has not seen.
    unseen = f"{path.parent}/{'./' * next(_fresh)}{path.name}"
    try:
        return tvm_ffi.load_module(unseen, keep_module_alive=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].rpartition(f"{path.name}: ")[2]
        raise LibraryError(f"{path}: cannot be loaded: {reason}") from None
    except UnicodeEncodeError:
        raise LibraryError(f"{str(path)!r}: cannot be loaded: the path is not UTF-8") from None


def read_manifest(path: Path, module: Any) -> dict[str, Any]:
    """The manifest inside; LibraryError when there is none, or of another version."""
    try:
        text = module.get_function("lpgen_manifest")()
    except AttributeError:
        raise LibraryError(f"{path}: is not an lpgen library (it has no manifest)") from None
    manifest = json.loads(text)
    if manifest.get("schema") != SCHEMA:
        raise LibraryError(
            f"{path}: has manifest schema {manifest.get('schema')}, this lpgen reads {SCHEMA}"
        )
    return manifest


def _check_file(path: Path) -> None:
    """Raise LibraryError unless `path` is a whole ELF file for x86-64: loading others may crash."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise LibraryError(f"{path}: is not a regular file")  # opening a pipe may block
        with path.open("rb") as file:
            head = file.read(64)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise LibraryError(f"{path}: {error.strerror}") from None
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
        raise LibraryError(f"{path}: is not a library (no 64-bit ELF file)")
    # e_machine, e_shoff, e_shentsize, e_shnum: the section headers are the end of the file.
    (machine,) = struct.unpack_from("<H", head, 18)
    (sections,) = struct.unpack_from("<Q", head, 40)
    entry, count = struct.unpack_from("<HH", head, 58)
    if machine != _EM_X86_64:
        raise LibraryError(f"{path}: was built for another machine (ELF machine {machine})")
    if sections + entry * count > size:
        raise LibraryError(f"{path}: is cut off at {size} bytes")
    if path.suffix != ".so":
        raise LibraryError(f"{path}: does not end in .so")
