"""Kernels of a library compared with other libraries, in a process that may die of any of them."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from lpgen.bench import peers
from lpgen.bench.comparison import Comparison
from lpgen.bench.isa import restraint
from lpgen.bench.messages import Failed, Phase, Present, Task
from lpgen.bench.turns import compared
from lpgen.build import build, scratch_folder
from lpgen.errors import LibraryError
from lpgen.ops import Operator, parse
from lpgen.records.choose import choose
from lpgen.runtime.arrays import count
from lpgen.runtime.kernel import MAX_THREADS
from lpgen.supervise import Child, Gone
from lpgen.target import Target

LIMIT = 300.0
"""Seconds that a library may take to be imported or to prepare one operator."""

_OWN_LIMIT = 600.0
"""Seconds for what is not a library's fault, such as the oracle of a large operator."""

_ATTEMPTS = 8


class Contest:
    """Compares kernels for `target` with the libraries `names`, on `threads` threads.

    target, threads: as given; present, absent: library -> version, or why it takes no part;
    restraint: what libraries are held to where the target is less than this CPU.
    A context manager: leaving it ends the process. Raises UserError for an unknown name.
    """

    def __init__(
        self,
        names: Sequence[str],
        target: Target,
        *,
        threads: int = 1,
        rounds: int = 15,
        seed: int = 0,
        limit: float = LIMIT,
    ) -> None:
        for name in names:
            peers.get(name)
        self.target, self.threads = target, count("threads", threads, MAX_THREADS)
        self._names = list(names)
        self._rounds, self._seed, self._limit = rounds, seed, limit
        self._environment, self._refuse_amx, self.restraint = restraint(target)
        self._skipped: dict[str, dict[tuple[str, str], str]] = {}
        self._dead: dict[str, str] = {}
        self._small: dict[str, Path] = {}
        self._files = contextlib.ExitStack()
        self._process: Child | None = None
        self.present: dict[str, str] = {}
        self.absent: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._folder = self._files.enter_context(scratch_folder())
        self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()
        self._files.close()

    def compare(self, library: str | os.PathLike[str], workload: str) -> Comparison:
        """Compare one kernel of a library with all that take part.

        Raises LibraryError when the kernel is wrong or cannot be loaded here.
        """
        op = parse(workload)
        small = str(self._small_library(op))
        for _ in range(_ATTEMPTS):
            skipped = self._skipped.get(op.name, {})
            path = os.path.abspath(library)
            task = Task(path, op.name, small, self._rounds, self._seed, skipped)
            answer = self._ask(task)
            if isinstance(answer, Comparison):
                return answer
            if isinstance(answer, Failed):
                raise LibraryError(f"{op.name}: {answer.reason}")
            self._blame(answer, op.name)
            self._start()
        raise LibraryError(f"{op.name}: {_ATTEMPTS} processes died of other libraries")

    def _ask(self, task: Task) -> "Comparison | Failed | _Death":
        process = self._process
        assert process is not None
        process.send(task)
        return self._answer(process)

    def _answer(self, process: Child) -> Any:
        """The next answer, or a _Death: when the process ends, or a phase takes too long."""
        phase = Phase("", "starting")
        while True:
            process.enter(phase.words, self._limit if phase.peer else _OWN_LIMIT)
            message = process.receive()
            if isinstance(message, Gone):
                last = message.last[:200]
                return _Death(phase, f"{message.reason}: {last}" if last else message.reason)
            if not isinstance(message, Phase):
                return message
            phase = message

    def _start(self) -> None:
        """A new process with every library whose import does not kill it."""
        while True:
            self._stop()
            names = [name for name in self._names if name not in self._dead]
            arguments = [str(int(self._refuse_amx)), str(self.threads), *names]
            environment = self._environment | settings(self.threads)
            process = Child("lpgen.bench.turns", *arguments, environment=environment)
            self._process = process
            answer = self._answer(process)
            if isinstance(answer, Present):
                break
            if not answer.phase.peer:
                raise LibraryError(f"the comparison {answer.reason}")
            self._dead[answer.phase.peer] = answer.reason
        self.present = answer.versions
        self.absent = answer.absent | self._dead

    def _blame(self, death: "_Death", workload: str) -> None:
        """Remember what the process died of, so that the next one leaves it out."""
        peer, way = death.phase
        if not peer:
            raise LibraryError(f"{workload}: the comparison {death.reason}")
        self._skipped.setdefault(workload, {})[peer, way] = death.reason

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _small_library(self, op: Operator) -> Path:
        """A library with the smallest operator of the same kind and formats."""
        small = compared(op).smallest()
        if small.name not in self._small:
            path = self._folder / f"small{len(self._small)}.so"
            self._small[small.name] = build([choose(small, self.target, lenders=())], path)
        return self._small[small.name]


class _Death(NamedTuple):
    """How a process ended, and what it was about to do."""

    phase: Phase
    reason: str


def settings(threads: int) -> dict[str, str]:
    """The environment of the process: all libraries get as many threads.

    The memory of results that a library allocates at each call is kept, rather than mapped and
    cleared anew: kinder to torch. tvm-ffi must not load its extension for torch, which is built
    when it is first used.
    """
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "TVM_NUM_THREADS": count,
        "TVM_FFI_DISABLE_TORCH_C_DLPACK": "1",
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
        "MALLOC_TOP_PAD_": str(1 << 26),
    }
