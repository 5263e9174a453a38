"""C libraries inside Python packages: where they lie, and their functions declared for ctypes."""

import ctypes
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Signature = tuple[Any, Sequence[Any]]
"""(type of the result, types of the arguments)"""


def folder(package: str) -> Path:
    """Where a package is installed; it is not imported. Raises ImportError without it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"no package {package}")
    return Path(found.submodule_search_locations[0])


def load(path: Path, functions: Mapping[str, Signature]) -> ctypes.CDLL:
    """The library, its functions declared. Raises ImportError if it, or one of them, is missing."""
    try:
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
        for name, (result, arguments) in functions.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, list(arguments)
    except (OSError, AttributeError) as error:
        raise ImportError(f"{path.name}: {error}") from error
    return library
