"""The compiler in a process of its own: what LLVM cannot select ends that process and no other.

It serves all builds of the process that started it, one at a time, because loading TVM takes
seconds, and leaves when nobody has asked for a while (see worker.py).
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lpgen.errors import CompileError, LpgenError
from lpgen.supervise import Child, Gone

if TYPE_CHECKING:
    from lpgen.algorithms.kernel import Function
    from lpgen.build.stack import Scratch
    from lpgen.target import Target


@dataclass(frozen=True)
class Request:
    """What to compile, and the object file to write; without one the assembly is answered."""

    functions: dict[str, Function]
    target: Target
    object_file: str | None


@dataclass(frozen=True)
class Doing:
    """What the compiler does from now on."""

    what: str


@dataclass(frozen=True)
class Compiled:
    """What `Lowered` knows of each function; the assembly, or nothing."""

    scratch: dict[str, Scratch]
    pieces: dict[str, int]
    assembly: str


def start() -> None:
    """Begin to start the compiler, so that it loads while there is something else to do."""
    with _lock:
        _running()


def compile_apart(
    what: str, functions: Mapping[str, Function], target: Target, object_file: Path | None = None
) -> Compiled:
    """`lpgen.build.lower.lower`, and the machine code written to `object_file` if there is one.

    what: the kernel's name in messages. Raises TooLarge as `lower` does, and CompileError with the
    reason when TVM or LLVM refuses the functions, crashes or is killed.
    """
    request = Request(dict(functions), target, object_file and str(object_file))
    with _lock:
        try:
            answer = _ask(request)
        except BaseException:
            stop()  # it may be in the middle of something, and what is in the pipe is unknown
            raise
    if isinstance(answer, Compiled):
        return answer
    if isinstance(answer, LpgenError):
        raise type(answer)(f"{what}: {answer}")
    raise CompileError(f"{what}: the compiler {answer}")


def stop() -> None:
    """End the compiler if it runs."""
    global _compiler
    if _compiler is not None and _owner == os.getpid():
        _compiler.stop()
    _compiler = None


_lock = threading.RLock()
_compiler: Child | None = None
_owner = 0
"""The process that started it: a fork of that has to start another."""
atexit.register(stop)


def _running() -> Child:
    global _compiler, _owner
    if _compiler is None or _owner != os.getpid() or _compiler.process.poll() is not None:
        stop()
        _compiler, _owner = Child("lpgen.build.worker"), os.getpid()
    return _compiler


def _ask(request: Request) -> Compiled | LpgenError | str:
    """The answer to a request: what was compiled, why not, or what ended the compiler."""
    known = _compiler
    compiler = _running()
    compiler.enter("starting")
    compiler.send(request)
    while isinstance(answer := compiler.receive(), Doing):
        compiler.enter(answer.what)
    if not isinstance(answer, Gone):
        return answer
    stop()
    # One that was there before may have left for want of work just now.
    again = compiler is known and compiler.doing == "starting"
    return _ask(request) if again else str(answer)
