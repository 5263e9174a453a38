"""The process that compiles, and may die of it: `python -m lpgen.build.worker PIPE PARENT`.

compiler.py starts it. It answers one request at a time until the pipe closes or it has been idle
for a minute.
"""

import sys
from multiprocessing.connection import Connection
from pathlib import Path

from lpgen.build.compiler import Compiled, Doing, Request
from lpgen.errors import LpgenError
from lpgen.supervise import connect, reason_of

IDLE_SECONDS = 60.0


def main(arguments: list[str]) -> None:
    """Serve; `arguments` as in the module's description."""
    pipe = connect(*arguments)
    import lpgen.build.lower  # noqa: F401  (TVM, while the parent is still busy)

    while pipe.poll(IDLE_SECONDS):
        try:
            request = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(request, pipe))


def _answer(request: Request, pipe: Connection) -> Compiled | LpgenError | str:
    """What came of the request: a text is the reason why TVM or LLVM refuses it."""
    from lpgen.build.lower import lower, write_object

    try:
        pipe.send(Doing("lowering the kernel"))
        lowered = lower(request.functions, request.target)
        pipe.send(Doing("generating machine code"))
        module = lowered.compile()
        if request.object_file is None:
            return Compiled(lowered.scratch, lowered.pieces, module.inspect_source("asm"))
        write_object(module, Path(request.object_file))
        return Compiled(lowered.scratch, lowered.pieces, "")
    except LpgenError as error:
        return error
    except OSError as error:
        return f"cannot write {request.object_file}: {error.strerror}"
    except Exception as error:
        return f"refuses it: {type(error).__name__}: {reason_of(error)}"


if __name__ == "__main__":
    main(sys.argv[1:])
