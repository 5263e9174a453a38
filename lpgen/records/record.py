"""A record: what one candidate did, as one line of JSON."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from typing import Any

from lpgen import target as targets
from lpgen.errors import RecordError, UserError
from lpgen.ops import workload as workloads
from lpgen.templates import current_name

MAX_LINE = 16 * 1024
"""The longest line that can be a record, in bytes."""

MAX_THREADS = 1024
MAX_REASON = 120
_MAX_SECONDS = 1e6
_MAX_CYCLES = 1e16
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,60}")


@dataclass(frozen=True)
class RunnerUp:
    """The template that was second to a winner, and the seconds of its best candidate."""

    template: str
    seconds: float


@dataclass(frozen=True)
class Record:
    """What one candidate did.

    workload: canonical text of the operator; target, template: their names; knobs: name -> choice
    seconds: time of one call, or None when the candidate failed, with `failed` saying why, or was
        only modelled, with `cycles` of a call as the static model has them, and `bound`: the part
        of those of its hot loop that the busiest unit of the CPU needs
    spread: (median - best) / best of its timings, how much the machine wavered
    trials: candidates measured for this operator so far, this one included
    best: it won the final race of its tuning run
    runner_up: the best other template in that run, None where no other worked
    threads: on how many it was timed
    versions: lpgen and tvm; cpu: see `this_cpu`; date: UTC, ISO 8601
    """

    workload: str
    target: str
    template: str
    knobs: dict[str, Any]
    seconds: float | None
    spread: float = 0.0
    trials: int = 1
    best: bool = False
    failed: str | None = None
    runner_up: RunnerUp | None = None
    threads: int = 1
    cycles: float | None = None
    bound: float | None = None
    versions: dict[str, str] = field(default_factory=lambda: this_versions())
    cpu: str = field(default_factory=lambda: this_cpu())
    date: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")

    @property
    def measured_here(self) -> bool:
        """Whether this CPU model and these versions measured it."""
        return self.cpu == this_cpu() and self.versions == this_versions()

    @property
    def lead(self) -> float | None:
        """How many times faster than the runner-up."""
        return self.runner_up and self.seconds and self.runner_up.seconds / self.seconds

    def to_line(self) -> str:
        """One line of JSON without the newline; what is at its default is left out."""
        content = asdict(self)
        absent = {"seconds": None, "failed": None, "best": False, "runner_up": None, "threads": 1}
        absent |= {"cycles": None, "bound": None}
        content = {n: v for n, v in content.items() if n not in absent or v != absent[n]}
        if self.failed is not None:
            content["failed"] = _printable(self.failed)[:MAX_REASON]
        if self.seconds is None:
            del content["spread"]
        return json.dumps(content, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_line(cls, line: str | bytes) -> "Record":
        """The record on a line. Raises RecordError with the reason when the line holds none."""
        if len(line) > MAX_LINE:
            raise RecordError(f"longer than {MAX_LINE} bytes")
        try:
            content = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise RecordError("not JSON") from None
        if not isinstance(content, dict):
            raise RecordError("not a JSON object")
        for name, holds in _CHECKS.items():
            if name in content and not holds(content[name]):
                raise RecordError(f"{name}={_brief(content[name])} is not valid")
            if name not in content and name in _REQUIRED:
                raise RecordError(f"{name} is missing")
        # Fields of later versions are ignored.
        names = [f.name for f in fields(cls) if f.name in content]
        given = _ABSENT | {name: content[name] for name in names}
        if second := given["runner_up"]:
            name = current_name(second["template"])
            given["runner_up"] = RunnerUp(name, second["seconds"])
        record = cls(**given)
        if sum(given[name] is not None for name in ("seconds", "failed", "cycles")) != 1:
            raise RecordError("needs one of seconds, failed, cycles")
        if record.target not in _target_names():
            raise RecordError(f"target {record.target} is not known")
        template = _current_name(record.template, record.target)
        return replace(record, workload=_canonical(record.workload), template=template)


_ABSENT: dict[str, Any] = {
    "seconds": None,
    "spread": 0.0,
    "trials": 1,
    "best": False,
    "failed": None,
    "runner_up": None,
    "threads": 1,
    "cycles": None,
    "bound": None,
    "versions": {},
    "cpu": "",
    "date": "",
}
_REQUIRED = ("workload", "target", "template", "knobs")


def _is_text(value: object, limit: int) -> bool:
    return isinstance(value, str) and len(value) <= limit and value.isprintable()


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= _MAX_SECONDS


def _is_seconds(value: object) -> bool:
    return _is_number(value) and value > 0


def _is_cycles(value: object) -> bool:
    return type(value) in (int, float) and 0 < value <= _MAX_CYCLES


def _is_template(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"\w{1,60}/\w{1,60}", value))


def _is_runner_up(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _is_template(value.get("template"))
        and _is_seconds(value.get("seconds"))
    )


def _is_knobs(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= 100
        and all(_WORD.fullmatch(name) for name in value)
        and all(
            type(choice) is bool
            or (type(choice) is int and abs(choice) < 2**63)
            or _is_text(choice, 100)
            for choice in value.values()
        )
    )


def _is_versions(value: object) -> bool:
    return isinstance(value, dict) and all(
        _WORD.fullmatch(name) and _is_text(text, 60) for name, text in value.items()
    )


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "workload": lambda v: _is_text(v, 1000),
    "target": lambda v: _is_text(v, 60),
    "template": _is_template,
    "knobs": _is_knobs,
    "seconds": lambda v: v is None or _is_seconds(v),
    "spread": lambda v: _is_number(v) and v >= 0,
    "trials": lambda v: type(v) is int and 0 < v < 2**63,
    "best": lambda v: type(v) is bool,
    "failed": lambda v: v is None or _is_text(v, 1000),
    "runner_up": lambda v: v is None or _is_runner_up(v),
    "threads": lambda v: type(v) is int and 1 <= v <= MAX_THREADS,
    "cycles": lambda v: v is None or _is_cycles(v),
    "bound": lambda v: v is None or (_is_number(v) and 0 < v <= 1),
    "versions": _is_versions,
    "cpu": lambda v: _is_text(v, 200),
    "date": lambda v: _is_text(v, 40),
}


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _brief(value: Any) -> str:
    text = _printable(json.dumps(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


@cache
def _target_names() -> frozenset[str]:
    return frozenset(targets.known())


@cache
def _current_name(template: str, target: str) -> str:
    return current_name(template, targets.Target.parse(target))


@cache
def _canonical(text: str) -> str:
    try:
        return str(workloads.parse(text))
    except UserError as error:
        raise RecordError(_printable(str(error))) from None


@cache
def this_versions() -> dict[str, str]:
    """The versions that decide what machine code the knobs give."""
    return {"lpgen": metadata.version("lpgen"), "tvm": metadata.version("apache-tvm")}


@cache
def this_cpu() -> str:
    """This CPU's model in words: records of equal CPUs may be compared in time."""
    found = targets.cpu_fingerprint()
    numbers = "-".join(str(found[key]) for key in ("family", "model", "stepping"))
    return _printable(f"{found['vendor']} {numbers} {found['brand']}")[:120]
