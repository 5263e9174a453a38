"""What the imports of tvm-ffi and TVM leave out.

apache-tvm-ffi imports torch wherever it is installed (2 s, 540 MB, in every process of a tuning
run) only to know its types in calls of tvm-ffi's own functions, and TVM for a class of modules in
Python that lpgen does not use. lpgen hands those NumPy arrays, and takes a torch tensor by DLPack,
for which the caller has imported torch. A program that wants the two to know each other imports
torch before lpgen.

TVM's relax is two fifths of the time that `import tvm` takes, and nothing of it is used here: it is
imported when somebody asks for one of its names.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from typing import Any

_BODIES = ("tvm_ffi", "tvm.relax.base_py_module")
"""Modules whose top level imports torch if it can."""

_LATER = "tvm.relax"


class _Finder:
    """Answers `import torch` in one of these bodies as if torch were not installed, and the import
    of relax with a module that is read when it is used."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == "torch" and _in_a_body():
            raise ModuleNotFoundError("torch stays out of the import of TVM", name=name)
        if name != _LATER:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def _in_a_body() -> bool:
    """Whether this thread is running the top level of one of them: other threads may import."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") in _BODIES:
            return True
        frame = frame.f_back
    return False


def install() -> None:
    """Have these imports as said, once; without effect where tvm_ffi is imported already."""
    if "tvm_ffi" not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
