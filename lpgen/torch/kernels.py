"""Kernels by the workloads they compute, of one library for all that a program needs.

A layer says what it will call (`want`). The first call of a kernel that is not there builds all
that is wanted into one library, which is kept for the next process in `$XDG_CACHE_HOME/lpgen`, for
this version and this CPU. `save` and `load` are for machines without a compiler.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from torch import nn

from lpgen import runtime
from lpgen.errors import LibraryError, UserError
from lpgen.runtime import Kernel

_kernels: dict[str, Kernel] = {}
_wanted: dict[str, None] = {}  # in the order of the layers
_lock = threading.RLock()


def want(name: str) -> None:
    """Build the kernel of this workload with the next that is built."""
    if name not in _kernels:
        _wanted[name] = None


def kernel(name: str) -> Kernel:
    """The kernel of a workload; it is built where it is in no library that is loaded."""
    found = _kernels.get(name)
    return _built(name) if found is None else found


def load(path: str | os.PathLike[str]) -> None:
    """Take the kernels of a library that `save` or `lpgen build` wrote, instead of building them.

    Raises LibraryError for a file that is none, or not of this CPU.
    """
    library = runtime.load(path)
    with _lock:
        for name in library.kernels:
            _kernels[name] = library[name]
            _wanted.pop(name, None)


def save(model: nn.Module, path: str | os.PathLike[str], target: str = "native") -> None:
    """Build the kernels that the layers of a model call as a library, for `load`.

    target: the CPU to generate for. Raises UserError for a model without such layers.
    """
    names = dict.fromkeys(name for m in model.modules() for name in getattr(m, "workloads", ()))
    if not names:
        raise UserError("the model has no quantized layers: lpgen.torch.quantize makes them")
    _build(names, Path(path), target)


def _built(name: str) -> Kernel:
    with _lock:
        want(name)
        if name in _wanted:
            names = sorted(_wanted)
            path = _kept(names)
            try:
                load(path)
            except LibraryError:  # there is none, or one of another version
                path.parent.mkdir(parents=True, exist_ok=True)
                _build(names, path)
                load(path)
        if name not in _kernels:
            raise LibraryError(f"{path} has no kernel {name}: delete it, so that it is built again")
        return _kernels[name]


def _kept(names: Iterable[str]) -> Path:
    """Where a library of these kernels is kept."""
    from lpgen.records import default_log
    from lpgen.target import Target

    target = Target.parse("native")
    log = default_log(target)
    tuned = f"{log.stat().st_size}" if log.exists() else "untuned"  # logs only grow
    said = "\n".join([version("lpgen"), target.name, tuned, *names])
    digest = hashlib.sha256(said.encode()).hexdigest()[:24]
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lpgen" / "torch" / f"{digest}.so"


def _build(names: Iterable[str], path: Path, target: str = "native") -> None:
    from lpgen.build import build
    from lpgen.records import default_log
    from lpgen.records.choose import choose
    from lpgen.target import Target

    row = Target.parse(target)
    logs = [default_log(lender) for lender in (row, *row.lenders())]
    build([choose(name, row, logs) for name in names], path)
