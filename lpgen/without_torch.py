"""The import of tvm-ffi without torch.

apache-tvm-ffi imports torch wherever it is installed (2 s, 540 MB, in every process of a tuning
run) only to know its types in calls of tvm-ffi's own functions. lpgen hands those NumPy arrays, and
takes a torch tensor by DLPack, for which the caller has imported torch. A program that wants the
two to know each other imports torch before lpgen.
"""

import sys
from typing import Any


class _Finder:
    """Answers `import torch` in the body of tvm_ffi's package as if torch were not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "torch" and _in_body_of("tvm_ffi"):
            raise ModuleNotFoundError("torch stays out of the import of tvm_ffi", name=name)


def _in_body_of(package: str) -> bool:
    """Whether this thread is running the top level of the package: other threads may import."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == package:
            return True
        frame = frame.f_back
    return False


def install() -> None:
    """Keep torch out of the import of tvm_ffi, once; without effect where that is over."""
    if "tvm_ffi" not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
