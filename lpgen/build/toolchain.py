"""The C compiler and linker of a target: this machine's own, or one that compiles for another.

For another architecture one of these, the first that is there:

* $CC, if what it compiles for is that architecture;
* the GCC of its triple (Debian's gcc-aarch64-linux-gnu), which brings binutils and the C library;
* clang with lld, or with the binutils of the triple, where the C library of the triple is installed
  (Debian's libc6-dev-arm64-cross);
* `zig cc` of the Python package ziglang, which brings all of that for every target: lpgen[cross].
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lpgen.errors import LibraryError
from lpgen.target import ARCHITECTURES

if TYPE_CHECKING:
    from lpgen.target import Target

GLIBC = "2.28"
"""The C library that zig links with: that of Debian 10 and of all that came later."""


def compiler_of(target: Target) -> list[str]:
    """The command that compiles C for the target and links it.

    Raises LibraryError when there is none, and names the ways to get one.
    """
    return find_compiler() if target.is_native else _cross_compiler(target)


def find_compiler() -> list[str]:
    """The command of this machine's C compiler: $CC, or the first of cc, gcc, clang on the path.

    Raises LibraryError when there is none.
    """
    given = _given()
    for command in [given] if given else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return command
    asked = f"$CC={given[0]}" if given else "cc, gcc, clang"
    raise LibraryError(f"no C compiler found ({asked}); install gcc or clang, or set $CC")


def _given() -> list[str]:
    try:
        return shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise LibraryError(f"$CC={os.environ['CC']} is no command: {error}") from None


def _cross_compiler(target: Target) -> list[str]:
    triple, given = target.triple, _given()
    if given and shutil.which(given[0]) and _compiles_for(tuple(given), target.architecture):
        return given
    if shutil.which(f"{triple}-gcc"):
        return [f"{triple}-gcc"]
    lld, binutils = shutil.which("ld.lld"), shutil.which(f"{triple}-ld")
    if shutil.which("clang") and (lld or binutils) and sysroot(target):
        return ["clang", f"--target={triple}", *(["-fuse-ld=lld"] if lld else [])]
    if found := zig():
        return [*found, "cc", "-target", f"{triple}.{GLIBC}"]
    raise LibraryError(
        f"nothing here compiles and links C for {triple}: install {triple}-gcc with its binutils, "
        f"clang with lld and the C library of {triple}, or `pip install lpgen[cross]` (ziglang)"
    )


def zig() -> list[str]:
    """The command in front of those of the Python package ziglang, [] where that is missing."""
    return [sys.executable, "-m", "ziglang"] if importlib.util.find_spec("ziglang") else []


@cache
def _compiles_for(command: tuple[str, ...], architecture: str) -> bool:
    asked = [*command, "-dumpmachine"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    machines = ARCHITECTURES[architecture].machines
    return said.partition("-")[0] in (*machines, machines[0].rstrip("l"))


def sysroot(target: Target) -> Path | None:
    """The folder in whose lib/ the C library of another architecture is, None: there is none."""
    given = os.environ.get("QEMU_LD_PREFIX")
    folder = Path(given) if given else Path("/usr") / target.triple
    return folder if any(folder.glob("lib/ld-linux*.so.*")) else None
