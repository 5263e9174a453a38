"""Scheduled kernels to machine code: measured in this process, or exported as a library."""

from lpgen.lazily import lazily

_PUBLIC = {
    "Choice": "choice",
    "build": "library",
    "check_output": "library",
    "header_path": "library",
    "scratch_folder": "scratch",
}
"""Name -> the module that has it."""

__all__ = list(_PUBLIC)
__getattr__, __dir__ = lazily(__name__, _PUBLIC)
