"""Calibration data: what a model's inputs are given, call by call, from a file of NumPy.

An array has the name of its input. It has one axis more than the input, and each entry of the first
is one call, or as many axes, and is cut along the first into calls. Where calls differ in size,
there is an array for each, NAME.0, NAME.1, ...
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lpgen.errors import QuantizeError

if TYPE_CHECKING:
    import onnx

Call = dict[str, np.ndarray]
"""The arrays of one call by the names of inputs."""


class Input(NamedTuple):
    """An input of a model; sizes: None where the file leaves them open."""

    dtype: np.dtype
    sizes: tuple[int | None, ...]


def inputs_of(model: onnx.ModelProto) -> dict[str, Input]:
    """The inputs of a model that are no constants, by name."""
    from onnx import helper

    constants = {tensor.name for tensor in model.graph.initializer}
    found = {}
    for value in model.graph.input:
        if value.name not in constants:
            tensor = value.type.tensor_type
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            sizes = tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)
            found[value.name] = Input(dtype, sizes)
    return found


def read_calls(path: str | os.PathLike[str], model: onnx.ModelProto) -> list[Call]:
    """The calls in a file of `numpy.savez`. Raises QuantizeError for what is no such file, and for
    arrays that do not fit the inputs of the model."""
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, Mapping):
            raise QuantizeError(f"{path} holds one array: numpy.savez names them")
        with file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise QuantizeError(f"{path}: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else "it is truncated"
        raise QuantizeError(f"{path} is no file of numpy.savez: {reason}") from None
    return calls_of(arrays, inputs_of(model), str(path))


def calls_of(
    arrays: Mapping[str, np.ndarray], inputs: Mapping[str, Input], where: str = "data"
) -> list[Call]:
    """The calls that arrays by name stand for. Raises QuantizeError where they do not fit."""
    parts: dict[str, dict[int, np.ndarray]] = {name: {} for name in inputs}
    for name, array in arrays.items():
        stem, number = _stem(name, inputs)
        if stem is None:
            raise QuantizeError(f"{where}: {name} is none of the inputs {', '.join(inputs)}")
        if number is not None:
            parts[stem][number] = array
        else:
            parts[stem] |= enumerate(_cut(array, inputs[stem], f"{where}: {name}"))
    counts = {name: len(found) for name, found in parts.items()}
    if len(set(counts.values())) > 1 or not any(counts.values()):
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise QuantizeError(f"{where} has calls for some inputs only: {said}")
    first = next(iter(parts.values()))
    return [
        {
            name: _fitting(found, i, inputs[name], f"{where}: {name}")
            for name, found in parts.items()
        }
        for i in sorted(first)
    ]


def _stem(name: str, inputs: Mapping[str, Input]) -> tuple[str | None, int | None]:
    """The input of an array and the number of its call."""
    if name in inputs:
        return name, None
    match = re.fullmatch(r"(.+)\.([0-9]{1,9})", name)
    return (match[1], int(match[2])) if match and match[1] in inputs else (None, None)


def _cut(array: np.ndarray, kind: Input, what: str) -> Sequence[np.ndarray]:
    """An array call by call."""
    rank = len(kind.sizes)
    if array.ndim == rank + 1:
        return array
    if array.ndim != rank or not rank:
        raise QuantizeError(f"{what} has {array.ndim} axes, expected {rank} or {rank + 1}")
    batch = kind.sizes[0] or 1
    if len(array) % batch:
        raise QuantizeError(f"{what}: {len(array)} entries are no whole calls of {batch}")
    return np.split(array, len(array) // batch) if len(array) else []


def _fitting(found: Mapping[int, np.ndarray], i: int, kind: Input, what: str) -> np.ndarray:
    """The array of a call, of the type of its input."""
    if i not in found:
        raise QuantizeError(f"{what} has no call {i}")
    array, sizes = found[i], kind.sizes
    fits = len(sizes) == array.ndim and all(
        size in (None, own) for size, own in zip(sizes, array.shape, strict=True)
    )
    if not fits:
        expected = ", ".join("?" if size is None else str(size) for size in sizes)
        raise QuantizeError(f"{what}, call {i}: shape {list(array.shape)}, expected [{expected}]")
    if not np.can_cast(array.dtype, kind.dtype, "same_kind"):
        raise QuantizeError(f"{what} has type {array.dtype}, expected {kind.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise QuantizeError(f"{what}, call {i}: values that are not finite (NaN or infinity)")
    return np.ascontiguousarray(array, kind.dtype)
