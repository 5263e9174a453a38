"""Linking one kernel that is measured: from an object file to a shared object, in memory.

It takes all from who loads it, so that no C library of the target is needed, which whole libraries
ask for (toolchain.py). For another architecture one of these, the first that is there: `ld` of the
binutils of its triple, `ld.lld`, the C compiler that libraries are made with, or lld of ziglang.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lpgen import supervise
from lpgen.build import toolchain
from lpgen.errors import CompileError, LibraryError

if TYPE_CHECKING:
    import tvm

    from lpgen.target import Target


LLD = "ld.lld"


def linker_of(target: Target) -> list[str]:
    """The command that links code for the target without any libraries.

    Raises LibraryError when there is none, and names the ways to get one.
    """
    own = "ld" if target.is_native else f"{target.triple}-ld"
    for linker in (own, LLD):
        if shutil.which(linker):
            return [linker]
    # Before the compiler of ziglang, which builds a C library first.
    if not target.is_native and (zig := toolchain.zig()):
        return [*zig, LLD]
    try:
        return [*toolchain.compiler_of(target), "-nostdlib"]
    except LibraryError as error:
        if target.is_native:
            raise LibraryError(f"no linker found (ld, ld.lld), and {error}") from None
    raise LibraryError(
        f"nothing here links code for {target.triple}: install its binutils ({own}), lld "
        "(ld.lld), or `pip install lpgen[cross]` (ziglang)"
    )


def shared_object(module: tvm.runtime.Module, target: Target) -> bytes:
    """The machine code of a module, which was built for the target, as a shared object.

    Raises LibraryError without a linker, CompileError when that fails.
    """
    linker = linker_of(target)
    files = [os.memfd_create(name) for name in ("kernel.o", "kernel.so")]
    try:
        compiled, linked = (Path(f"/proc/{os.getpid()}/fd/{file}") for file in files)
        module.write_to_file(str(compiled), "o")
        # Nothing of a process that is killed is left: both files are in memory. lld would replace
        # the second one by another, unless it is its standard output.
        output = "-" if linker[-1] == LLD else str(linked)
        command = [*linker, "-shared", "-o", output, str(compiled)]
        status, said = supervise.run(command, Path("/"), files[1])
        if status != 0:
            raise CompileError(f"{linker[0]} failed: {said.strip()[:200] or f'status {status}'}")
        return linked.read_bytes()
    finally:
        for file in files:
            os.close(file)
