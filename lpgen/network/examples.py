"""Inputs of a network to try: random ones, those of a range, or those of a file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lpgen import runtime
from lpgen.errors import NetworkError
from lpgen.formats import Format
from lpgen.ops import parse
from lpgen.ops.cast import Cast
from lpgen.ops.movement import Gather


class Between(NamedTuple):
    """Numbers of an input that are drawn from low..high, of integers both included."""

    low: float
    high: float


def read_given(texts: Sequence[str]) -> dict[str, np.ndarray | Between]:
    """What FILE.npz holds, and what NAME=LOW..HIGH says, by the names of inputs. Raises
    NetworkError for other texts, and for a file that is none of NumPy."""
    found: dict[str, np.ndarray | Between] = {}
    for text in texts:
        if text.endswith(".npz"):
            found |= _arrays(Path(text))
            continue
        name, _, ends = text.rpartition("=")
        try:
            low, high = map(float, ends.split(".."))
        except ValueError:
            low, high = np.nan, np.nan
        if not name or not low <= high:
            raise NetworkError(
                f"{text!r} is neither FILE.npz nor NAME=LOW..HIGH, such as ids=0..999"
            )
        found[name] = Between(low, high)
    return found


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise NetworkError(f"{path}: {error.strerror or error}") from None
    except (ValueError, zipfile.BadZipFile) as error:
        raise NetworkError(f"{path} is no file of NumPy arrays: {error}") from None


def inputs_of(
    network: runtime.Network,
    rng: np.random.Generator,
    given: Mapping[str, np.ndarray | Between] = {},
) -> dict[str, np.ndarray]:
    """The inputs that are given, others random: codes are values of the format in which the first
    step reads them, and places those of the rows of the table that they are looked up in. Raises
    NetworkError for a name that no input has, and for arrays of another shape or dtype."""
    if unknown := sorted(set(given) - {*network.inputs}):
        names = ", ".join(network.inputs)
        raise NetworkError(f"the network has no input {unknown[0]!r}; its inputs: {names}")
    return {
        tensor.name: _checked(tensor, given[tensor.name], rng)
        if tensor.name in given
        else _random(network, tensor, rng)
        for tensor in network.inputs.values()
    }


def _checked(
    tensor: runtime.Tensor, value: np.ndarray | Between, rng: np.random.Generator
) -> np.ndarray:
    if not isinstance(value, Between):
        if value.shape != tensor.shape or value.dtype != tensor.dtype:
            raise NetworkError(f"input {tensor} is given as {value.dtype}{list(value.shape)}")
        return value
    if tensor.dtype.kind == "f":
        return rng.uniform(*value, tensor.shape).astype(tensor.dtype)
    limits = np.iinfo(tensor.dtype)
    if not limits.min <= value.low <= value.high <= limits.max:
        ends = f"{limits.min}..{limits.max}"
        raise NetworkError(f"input {tensor}: {value.low:g}..{value.high:g} is outside {ends}")
    return rng.integers(*map(int, value), tensor.shape, tensor.dtype, endpoint=True)


def _random(
    network: runtime.Network, tensor: runtime.Tensor, rng: np.random.Generator
) -> np.ndarray:
    if tensor.dtype.kind == "f":
        return rng.normal(size=tensor.shape).astype(tensor.dtype)
    for step in network.steps:
        signature = parse(step.workload).signature
        for argument in signature.scalars:
            if step.inputs.get(argument.name) == tensor.name:
                low, high = argument.limits[:2]
                return rng.integers(low, high, tensor.shape, tensor.dtype, endpoint=True)
        for argument in signature.inputs:
            if step.inputs.get(argument.name) == tensor.name:
                if argument.limits is not None and ":" not in argument.format:
                    return Format.parse(argument.format).random(rng, tensor.shape)
    limits = np.iinfo(tensor.dtype)
    low, high = _places(network, tensor.name) or (limits.min, limits.max)
    return rng.integers(low, high, tensor.shape, tensor.dtype, endpoint=True)


def _places(network: runtime.Network, name: str) -> tuple[int, int] | None:
    """The least and the largest row of a table that a tensor of integers may name, cast or not;
    None where it names none."""
    found = None
    for step in network.steps:
        if name not in step.inputs.values():
            continue
        op = parse(step.workload)
        if isinstance(op, Cast):
            found = _places(network, step.output) or found
        elif isinstance(op, Gather) and step.inputs.get("index") == name:
            found = 0, op.rows - 1
    return found


def read_inputs(
    path: str | os.PathLike[str], texts: Sequence[str], seed: int = 0, version: int = 0
) -> dict[str, np.ndarray]:
    """The inputs of the network of a library, as `read_given` and `inputs_of` say; version: which
    one, of several sizes."""
    versions = runtime.Library(path).versions
    if not versions:
        raise NetworkError(f"{path}: holds no network")
    return inputs_of(versions[version], np.random.default_rng(seed), read_given(texts))
