"""Checking a library: every kernel in a fresh process against the NumPy oracle, exactly.

The checking process only loads the library and has no compiler. When a kernel brings it down, that
is the kernel's result, and another process goes on with the rest. A library for another CPU is run
by an emulator (`lpgen.build.emulated`), which an instruction brings down that the CPU lacks.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lpgen import runtime
from lpgen.build.emulated import EmulatedLibrary
from lpgen.build.emulator import emulator_of
from lpgen.build.foreign import foreign_manifest, is_foreign, targets_in
from lpgen.build.scratch import scratch_folder
from lpgen.errors import LibraryError, LpgenError
from lpgen.ops import Operator, parse
from lpgen.ops.layers import NAME
from lpgen.ops.operator import Example
from lpgen.ops.rows import Range
from lpgen.runtime.files import asked_by_environment
from lpgen.runtime.memory import aligned_copy
from lpgen.supervise import ONE_THREAD, Child, Gone, connect
from lpgen.target import Target

NATIVE = "native"
THREADS = (1, 2)
RANDOM_INPUTS = 2

ALWAYS = ONE_THREAD | {"LPGEN_TASK_US": "0"}
"""Kernels of any size are split."""


class Kernels(Protocol):
    """A library as far as checking asks for it, wherever its kernels run: `runtime.Library`,
    `EmulatedLibrary`, or one on a device."""

    def __getitem__(self, name: str) -> Any:
        """The kernel of that name; LibraryError where none is in use."""


@dataclass(frozen=True)
class Checked:
    """What came of one kernel for `target`: `failure` is None when every result was exact, else the
    reason."""

    workload: str
    template: str
    calls: int
    failure: str | None = None
    target: str = ""


def check_library(
    path: str | os.PathLike[str],
    seed: int = 0,
    target: Target | None = None,
    asked: str | None = None,
) -> Iterator[Checked]:
    """Check every kernel of the library `path`, each as soon as it is done, in its order.

    target: the CPU that an emulator runs it on, None: this one; asked: of several targets that the
    library was built for the one whose kernels are checked, as `runtime.load` takes it.
    Random inputs and the worst case of each sign, on one thread and on two; of a kernel with a
    range of rows, sizes of all kinds, and every number of bit layers.
    Raises LibraryError when the library cannot be loaded, or has no kernel that this CPU can run,
    and for a negative seed; where the target has no emulator here.
    """
    if seed < 0:
        raise LibraryError(f"seed={seed} is negative")
    if target is None:
        library = runtime.load(path, asked)
        remaining = library.kernels if asked else library.workloads
    else:
        remaining = _names_in(Path(path), target)
    where = target.name if target else NATIVE
    while remaining:
        started = ("lpgen.build.check", str(path), str(seed), where, asked or "", *remaining)
        child = Child(*started, environment=ALWAYS)
        try:
            while remaining:
                child.enter("checking")
                message = child.receive()
                if isinstance(message, Gone):
                    yield Checked(remaining.pop(0), "", 0, str(message), asked or "")
                    break
                remaining.pop(0)
                yield Checked(*message)
        finally:
            child.stop()


def _names_in(path: Path, target: Target) -> list[str]:
    """The kernels of a library for another CPU."""
    emulator_of(target)
    manifest = foreign_manifest(path)
    built = targets_in(manifest)
    if target.architecture != built[0].architecture:
        names = ", ".join(map(str, built))
        raise LibraryError(f"{path}: was built for {names}, which {target.name} does not run")
    asked = asked_by_environment()
    if asked and asked not in {name for one in built for name in (one.name, one.level)}:
        names = ", ".join(one.name for one in built)
        raise LibraryError(
            f"{path}: LPGEN_TARGET {asked[:80]!r} is not inside; it is built for {names}"
        )
    return [entry["workload"] for entry in manifest["kernels"]]


def emulated_target(path: Path, name: str | None) -> Target | None:
    """The CPU that an emulator has to run a library on: that called `name`, or where there is none
    what a library of another architecture was built for; None: this machine runs it.

    Raises LibraryError for a file that is no library.
    """
    if name is not None:
        target = Target.parse(name)
        return None if target.is_native else target
    if not is_foreign(path):
        return None
    return targets_in(foreign_manifest(path))[0]


def lacking_on(path: Path, target: Target) -> dict[str, tuple[str, ...]]:
    """What the CPU `target`, which an emulator runs, lacks for each of a library's targets."""
    emulator_of(target)
    features = frozenset(target.features)
    return {built.name: built.missing_on(features) for built in targets_in(foreign_manifest(path))}


@contextlib.contextmanager
def opened(path: str, where: str, asked: str) -> Iterator[runtime.Library | EmulatedLibrary]:
    """A library on the CPU `where`: this one (NATIVE), or the name of what an emulator runs."""
    if where == NATIVE:
        yield runtime.Library(path, asked)
        return
    with scratch_folder() as folder:
        library = EmulatedLibrary(Path(path), Target.parse(where), folder, asked)
        try:
            yield library
        finally:
            library.emulator.close()


def check_kernel(library: Kernels, name: str, seed: int) -> Checked:
    """Compare one kernel with the oracle."""
    op, calls, target = parse(name), 0, ""
    try:
        kernel = library[name]
        target, template = kernel.variant["target"], kernel.variant["template"]
        for example in _examples(op, seed):
            inputs = {name: _unaligned(value) for name, value in example.inputs.items()}
            if example.weights is not None:
                packed = kernel.pack_weights(example.weights, **example.parameters)
                inputs[op.signature.packed.name] = packed
            expected = op.reference(**example.given)
            for threads in THREADS:
                y = np.full(expected.shape, 0x5A, expected.dtype)
                kernel(**inputs, out=y, threads=threads)
                calls += 1
                if not np.array_equal(y, expected):
                    different = difference(kernel.output.name, y, expected)
                    numbers = {op.ROWS: len(y)} if op.range else {}
                    numbers |= {NAME: inputs[NAME]} if op.layers else {}
                    of = "".join(f"{name}={number}, " for name, number in numbers.items())
                    failure = f"{different} ({of}{example.name} input, threads={threads})"
                    return Checked(name, template, calls, failure, target)
    except LpgenError as error:
        return Checked(name, "", calls, str(error), target)
    return Checked(name, template, calls, None, target)


def _examples(op: Operator, seed: int) -> Iterator[Example]:
    rng = np.random.default_rng(seed)
    layers = itertools.cycle(op.bit_layers.all) if op.layers else None
    if op.range is not None:
        for rows in edges(op.range):
            example = op.at(rows).example(rng)
            yield example.with_layers(next(layers)) if layers else example
        op = op.at(op.range.high)
    for name in (*("random",) * RANDOM_INPUTS, *op.EXTREMES):
        example = op.example(rng, name)
        yield from map(example.with_layers, op.bit_layers.all) if layers else (example,)


def edges(rows: Range) -> list[int]:
    """Sizes of a range to try: the ends, all small ones, and those beside powers of two."""
    near = {power + i for power in (32, 64, 128, 256, 512, 1024) for i in (-1, 0, 1)}
    some = {rows.low, *range(1, 18), *near, rows.high - 1}
    return sorted(size for size in some if rows.low <= size < rows.high)


def _unaligned(value: Any) -> Any:
    """A tensor at an odd address: kernels take them from anywhere. Floats are aligned to 4."""
    return aligned_copy(value, value.itemsize) if isinstance(value, np.ndarray) else value


def difference(name: str, y: np.ndarray, expected: np.ndarray) -> str:
    """How many elements differ, and the first of them."""
    first = np.unravel_index(int(np.argmax(y != expected)), y.shape)
    where, count = ", ".join(map(str, map(int, first))), np.count_nonzero(y != expected)
    where = f"{name}[{where}]"
    return f"{count} of {y.size} wrong, the first {where} = {y[first]}, not {expected[first]}"


def _main(
    pipe: str, parent: str, path: str, seed: str, where: str, asked: str, *names: str
) -> None:
    connection = connect(pipe, parent)
    with opened(path, where, asked) as library:
        for name in names:
            # Plain values: this module has another name in its parent.
            connection.send(astuple(check_kernel(library, name, int(seed))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
