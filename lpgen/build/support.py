"""The C that is the same in every library, compiled once in a process for each C compiler."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from lpgen import supervise
from lpgen.errors import LibraryError

# And the cpu_*.c of the architecture.
C_FILES = (
    *("support.c", "pool.c", "affinity.c", "cpu.c"),
    *("packed.c", "entry.c", "network.c", "weights.c"),
    *("ffi.c", "ffi_library.c", "ffi_network.c"),
)
H_FILES = ("internal.h", "pool.h", "ffi.h")

# -O3: the check of the weights vectorizes. Baseline CPU: it must run before the CPU is known.
C_FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-pthread")

_compiled: dict[tuple[str, ...], dict[str, bytes]] = {}
"""The object files by name, for a compiler's command and the file of an architecture."""


def support_objects(compiler: Sequence[str], cpu_file: str, folder: Path) -> list[str]:
    """The names of the object files, which are written to `folder`, and the headers with them.

    cpu_file: the C file that asks a CPU of the architecture what it has. Raises LibraryError when
    the compiler fails.
    """
    for name in H_FILES:
        _write(name, folder)
    key = *compiler, cpu_file
    if key not in _compiled:
        sources = (cpu_file, *C_FILES)  # the first says what the compiler has to be for
        for name in sources:
            _write(name, folder)
        run_compiler([*compiler, *compile_flags(), "-c", *sources], folder)
        names = [f"{Path(source).stem}.o" for source in sources]
        _compiled[key] = {name: (folder / name).read_bytes() for name in names}
    for name, data in _compiled[key].items():
        (folder / name).write_bytes(data)
    return list(_compiled[key])


def compile_flags() -> list[str]:
    """What C of a library is compiled with, beside what it is linked with."""
    return [*C_FLAGS, *_includes()]


def run_compiler(command: Sequence[str], folder: Path) -> None:
    """Run the C compiler in a folder. Raises LibraryError with the first error that it names."""
    status, said = supervise.run(command, folder)
    if status != 0:
        named = (line for line in said.splitlines() if "error" in line or "failed" in line)
        reason = next(named, said).strip()[:300] or f"status {status}"
        raise LibraryError(f"the C compiler {command[0]} failed: {reason}")


def _write(name: str, folder: Path) -> None:
    text = (resources.files("lpgen.build") / name).read_text(encoding="utf-8")
    (folder / name).write_text(text, encoding="utf-8")


def _includes() -> list[str]:
    from tvm_ffi import libinfo

    found = dict.fromkeys([libinfo.find_include_path(), libinfo.find_dlpack_include_path()])
    return [f"-I{include}" for include in found]
