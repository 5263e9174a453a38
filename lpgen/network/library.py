"""Building a network's library: a kernel for each operator, and the program of its steps."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from lpgen import build as kernels
from lpgen.build import Choice
from lpgen.build.choice import identifier
from lpgen.errors import NetworkError
from lpgen.network.network import Network
from lpgen.network.plan import plan
from lpgen.network.program import Program
from lpgen.ops import Operator
from lpgen.records import Log
from lpgen.records.choose import choose
from lpgen.target import Target

RESERVED = ("pool", "kernel", "network", "ffi", "lpgen")
"""What functions inside of a library begin with."""


def build(
    network: Network,
    target: Target | str,
    out: str | os.PathLike[str],
    logs: Iterable[Log | str | os.PathLike] = (),
    *,
    name: str | None = None,
    threads: int = 1,
    chooser: Callable[[Operator], Choice] | None = None,
    on_progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> Path:
    """Write a library that runs `network` to `out`, and its header beside it (.h).

    logs, threads: as `lpgen.choose` takes them, for the kernel of each operator; equal ones
    share it. chooser: chooses in its place. name: what its C functions begin with [the name of the
    file]. on_progress: is told what is done, how much of it, and of how much.
    Both files appear complete or not at all. Raises as `lpgen.build.build` and `choose` do;
    NetworkError for a name that C does not take, and for weights that cannot be packed.
    """
    name = default_name(out, name)
    target = target if isinstance(target, Target) else Target.parse(target)
    kernels.check_output(out)
    operators = list(dict.fromkeys(step.op for step in network.steps))
    if not operators:
        raise NetworkError("the network has no steps")
    chooser = chooser or (lambda op: choose(op, target, logs, threads=threads))
    choices = []
    for op in operators:
        choices.append(chooser(op))
        on_progress("choosing kernels", len(choices), len(operators))
    program = Program(network, plan(network), name)
    return kernels.build(
        choices, out, program, lambda done: on_progress("compiling", done, len(choices))
    )


def default_name(out: str | os.PathLike[str], name: str | None = None) -> str:
    """What the C functions of the library `out` begin with: `name`, or what the file is called.

    Raises NetworkError for what C does not take as a name, and for what is taken.
    """
    name = identifier(Path(out).stem) if name is None else name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise NetworkError(f"name {name!r} is no C identifier of letters, digits and _")
    if name in RESERVED:
        raise NetworkError(f"name {name!r} is taken inside of the library; choose another one")
    return name
