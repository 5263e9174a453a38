"""Linking one kernel that is measured: from an object file to a shared object, in memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lpgen import supervise
from lpgen.build.toolchain import find_compiler
from lpgen.errors import CompileError, LibraryError

if TYPE_CHECKING:
    import tvm


def find_linker() -> list[str]:
    """The command that links without any libraries: ld, ld.lld, or the C compiler.

    Raises LibraryError when there is none.
    """
    for linker in ("ld", "ld.lld"):
        if shutil.which(linker):
            return [linker]
    try:
        return [*find_compiler(), "-nostdlib"]
    except LibraryError as error:
        raise LibraryError(f"no linker found (ld, ld.lld), and {error}") from None


def shared_object(module: tvm.runtime.Module) -> bytes:
    """The machine code of a module as a shared object, which takes all from who loads it.

    Raises LibraryError without a linker, CompileError when that fails.
    """
    linker, files = find_linker(), [os.memfd_create(name) for name in ("kernel.o", "kernel.so")]
    try:
        compiled, linked = (Path(f"/proc/{os.getpid()}/fd/{file}") for file in files)
        module.write_to_file(str(compiled), "o")
        # Nothing of a process that is killed is left: both files are in memory.
        command = [*linker, "-shared", "-o", str(linked), str(compiled)]
        status, said = supervise.run(command, Path("/"))
        if status != 0:
            raise CompileError(f"{linker[0]} failed: {said.strip()[:200] or f'status {status}'}")
        return linked.read_bytes()
    finally:
        for file in files:
            os.close(file)
