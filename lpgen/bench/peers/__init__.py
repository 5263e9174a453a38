"""Other libraries that run quantized operators, found by path: lpgen/bench/peers/<name>.py.

A module there offers `version() -> str`, which imports the library (ImportError: it is missing),
and `variants(case, threads)`: the ways in which the library can run the operator of a Case on so
many threads, {name: function without arguments that prepares it}. Such a function returns a
Contender whose call does what a user of the library repeats for every input: weights are prepacked,
the layout is the library's fastest. It raises Unsupported with the reason where the library cannot.
One that runs ONNX files has `model(path, inputs, outputs, threads)`: a call on arrays by name.
A module whose name starts with an underscore is a helper.
"""

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType

from lpgen.bench.case import Contender
from lpgen.errors import UserError

Variants = dict[str, Callable[[], Contender]]


def known() -> list[str]:
    """The names of all peers, sorted; they may or may not be installed."""
    found = pkgutil.iter_modules(__path__)
    return sorted(module.name for module in found if not module.name.startswith("_"))


def get(name: str) -> ModuleType:
    """The peer of that name. Raises UserError listing what is known."""
    if name not in known():
        raise UserError(f"peer {name!r} is unknown; known: {', '.join(known())}")
    return importlib.import_module(f"{__name__}.{name}")
