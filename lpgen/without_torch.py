"""The imports of tvm-ffi and TVM without torch.

apache-tvm-ffi imports torch wherever it is installed (2 s, 540 MB, in every process of a tuning
run) only to know its types in calls of tvm-ffi's own functions, and TVM for a class of modules in
Python that lpgen does not use. lpgen hands those NumPy arrays, and takes a torch tensor by DLPack,
for which the caller has imported torch. A program that wants the two to know each other imports
torch before lpgen.
"""

import sys
from typing import Any

_BODIES = ("tvm_ffi", "tvm.relax.base_py_module")
"""Modules whose top level imports torch if it can."""


class _Finder:
    """Answers `import torch` in one of these bodies as if torch were not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "torch" and _in_a_body():
            raise ModuleNotFoundError("torch stays out of the import of TVM", name=name)


def _in_a_body() -> bool:
    """Whether this thread is running the top level of one of them: other threads may import."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") in _BODIES:
            return True
        frame = frame.f_back
    return False


def install() -> None:
    """Keep torch out of these imports, once; without effect where tvm_ffi is imported already."""
    if "tvm_ffi" not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
