"""What comparing a kernel with other libraries found, and a report of many such comparisons."""

import datetime
import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from lpgen.target import cpu_fingerprint

OURS = "lpgen"

_CALLS = (
    "One call on warm caches: inputs, results and prepared weights lie in memory that stays the "
    "same; each library is called through its own Python interface with everything bound or "
    "prepacked beforehand (lpgen: Kernel.bind; onnxruntime: run_with_iobinding; torch, zentorch: "
    "the operator under inference mode, torch's result allocated by each call; openvino: infer of "
    "a bound request; litert: invoke; executorch: xnn_invoke_runtime; ncnn: input and extract of "
    "an Extractor; llama_cpp: ggml_backend_graph_compute). us_call is what such a call takes for "
    "the smallest operator of the same kind. All take turns in one process, in rounds; us_best is "
    "the best of all rounds."
)

_THREADS = (
    " All have as many threads, on the same cores. A turn begins when the threads of the turn "
    "before sleep (none of the process is ready to run), so that nobody spins on another's cores; "
    "then 10 ms of calls bring the own threads to their pace, and 10 ms are timed."
)


def timed(threads: int) -> str:
    """How calls on so many threads are timed, for whoever reads the table."""
    return _CALLS + _THREADS * (threads > 1)


@dataclass(frozen=True)
class Entry:
    """How long one way of one library takes.

    peer: the library ("lpgen": this kernel); way: its operator; out: what it writes (others: "s32",
    "u8", which stands for int8, too, or "f32"; lpgen: the operator's `out`); weight: how it keeps
    weights; us_best, us_median: microseconds of one call, over the rounds; us_call: those of
    the smallest operator (None: it cannot run that).
    """

    peer: str
    way: str
    out: str
    weight: str
    us_best: float
    us_median: float
    us_call: float | None


@dataclass(frozen=True)
class Comparison:
    """One kernel and all that other libraries offered for its operator.

    origin: where its knobs come from (`Choice.origin`); refused: "PEER WAY" or "PEER" -> why there
    is no entry of it.
    """

    workload: str
    target: str
    template: str
    knobs: dict[str, Any]
    origin: str
    threads: int
    ours: Entry
    entries: tuple[Entry, ...]
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def rivals(self) -> tuple[Entry, ...]:
        """The entries to compare with: those that write what this kernel writes, if there are any.

        A kernel that writes its int32 sums is compared with all: the others do more and write less.
        """
        own = "u8" if self.ours.out == "s8" else self.ours.out
        alike = tuple(entry for entry in self.entries if entry.out == own)
        return alike if alike and own != "s32" else self.entries

    def best(self, peer: str | None = None) -> Entry | None:
        """The fastest rival, or the fastest of one library; None where there is none."""
        chosen = [entry for entry in self.rivals if peer in (None, entry.peer)]
        return min(chosen, key=lambda entry: entry.us_best, default=None)

    @property
    def ratio(self) -> float | None:
        """The time of the fastest rival divided by ours."""
        best = self.best()
        return best and best.us_best / self.ours.us_best

    @property
    def ratio_without_calls(self) -> float | None:
        """`ratio` with what the smallest call takes left out on both sides; None if unknown."""
        best = self.best()
        times = [(e.us_best, e.us_call) for e in (best, self.ours) if e is not None]
        if len(times) < 2 or any(call is None or call >= us for us, call in times):
            return None
        (rival, its), (own, mine) = times
        return (rival - its) / (own - mine)

    def describe(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        best = self.best()
        return {
            **_rounded(asdict(self)),
            "best": best and f"{best.peer} {best.way}",
            "ratio": _rounded(self.ratio),
            "ratio_without_calls": _rounded(self.ratio_without_calls),
        }


@dataclass
class Report:
    """Comparisons of one run and what they were made with.

    peers: library -> version; absent: library -> why it took no part; restraint: what libraries
    were held to.
    """

    target: str
    threads: int
    peers: dict[str, str]
    absent: dict[str, str]
    restraint: str
    rows: list[tuple[str, Comparison]] = field(default_factory=list)
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())
    cpu: str = field(default_factory=lambda: cpu_fingerprint()["brand"])

    def add(self, label: str, comparison: Comparison) -> None:
        """Add a row; label: the operator's name in tables."""
        self.rows.append((label, comparison))

    @property
    def ratios(self) -> list[float]:
        """Of all rows that have one."""
        return [c.ratio for _, c in self.rows if c.ratio is not None]

    @property
    def mean(self) -> float | None:
        """The geometric mean of the ratios."""
        return geometric_mean(self.ratios) if self.ratios else None

    @property
    def mean_without_calls(self) -> float | None:
        """The geometric mean of the ratios without calls, if every row with a ratio has one."""
        found = [c.ratio_without_calls for _, c in self.rows if c.ratio is not None]
        return geometric_mean(found) if found and None not in found else None

    def refusals(self) -> list[tuple[str, list[str]]]:
        """("PEER WAY: reason", labels of the operators that it holds for).

        Reasons that differ only in their numbers are one; it has those of the first operator.
        """
        found: dict[str, tuple[str, list[str]]] = {}
        for label, comparison in self.rows:
            for who, reason in comparison.refused.items():
                key = f"{who}: {re.sub('[0-9.]+', '#', reason)}"
                found.setdefault(key, (f"{who}: {reason}", []))[1].append(label)
        return list(found.values())

    def describe(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "date": self.date,
            "cpu": self.cpu,
            "target": self.target,
            "threads": self.threads,
            "peers": self.peers,
            "absent": self.absent,
            "restraint": self.restraint,
            "timed": timed(self.threads),
            "geometric_mean": _rounded(self.mean),
            "geometric_mean_without_calls": _rounded(self.mean_without_calls),
            "rows": [{"label": label, **c.describe()} for label, c in self.rows],
        }

    def write(self, path: Path) -> None:
        """Write the report as JSON. Raises OSError."""
        path.write_text(json.dumps(self.describe(), indent=1) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """All floats in a tree of JSON values to five digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
