"""lpgen generates, tunes and exports low-precision CPU kernels.

`lpgen.parse(text)` (or `Dense`, `Conv2d`) makes an operator, `lpgen.tune.tune` searches how to run
it, `lpgen.choose` takes the best known way, `lpgen.build.build` writes a library of such
choices, `lpgen.runtime.load` loads it. Everything is imported when it is first used, because the
compiler takes seconds to import.
"""

from importlib import import_module
from typing import Any

from lpgen import imports

# Here, because every room that imports tvm or tvm-ffi is imported after this.
imports.install()

# Public name -> (module, name in it); None: the module itself.
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "Conv2d": ("lpgen.ops.conv2d", "Conv2d"),
    "Dense": ("lpgen.ops.dense", "Dense"),
    "Format": ("lpgen.formats", "Format"),
    "Target": ("lpgen.target", "Target"),
    "bench": ("lpgen.bench", None),
    "build": ("lpgen.build", None),
    "choose": ("lpgen.records.choose", "choose"),
    "parse": ("lpgen.ops.workload", "parse"),
    "runtime": ("lpgen.runtime", None),
    "suites": ("lpgen.ops.suites", None),
    "tune": ("lpgen.tune", None),
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("lpgen")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lpgen' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    found = import_module(module)
    return found if attribute is None else getattr(found, attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
