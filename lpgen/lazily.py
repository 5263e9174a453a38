"""Packages whose public names are imported when they are first used.

So a part of a package can be had without what the rest of it needs: a device that runs kernels has
neither the compiler nor the search.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(
    package: str, public: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package; public: name -> the module of it that has it."""

    def get(name: str) -> Any:
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{public[name]}"), name)

    return get, lambda: sorted(public)
