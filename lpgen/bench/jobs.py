"""A job file: what is to be measured, on what, and the results that there are already.

suites = ["resnet18"]                  # with bits, act, weight, epilogue as options of suites
workloads = ["dense m=1 n=1024 k=1024 act=u8 weight=s4"]
networks = ["model.so"]
targets = ["native", "cortex-a72"]     # [native]
threads = [1, 4]                       # [1]
peers = ["onnxruntime"]                # on this machine; rounds = 15
rpc = "127.0.0.1:9190"                 # with key = "rpi4", or the key of each target:
keys = {cortex-a72 = "rpi4"}           # targets without one are measured here
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lpgen.errors import UserError
from lpgen.runtime.kernel import MAX_THREADS
from lpgen.target import Target

_TEXTS = ("suites", "workloads", "networks", "targets", "peers")
_MOST_ROUNDS = 1000


@dataclass(frozen=True)
class Jobs:
    """What a job file says; its keys are the fields."""

    suites: tuple[str, ...] = ()
    bits: str | None = None
    act: str | None = None
    weight: str | None = None
    epilogue: str | None = None
    workloads: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("native",)
    threads: tuple[int, ...] = (1,)
    peers: tuple[str, ...] = ()
    rounds: int = 15
    rpc: str | None = None
    key: str | None = None
    keys: dict[str, str] | None = None

    def key_of(self, target: str) -> str | None:
        """Which device measures a target; None: this machine."""
        return self.key or (self.keys or {}).get(target)


def read_jobs(path: Path) -> Jobs:
    """The jobs in a file. Raises UserError, one line, for what is none or does not fit together."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"jobs {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"jobs {path}: {error}") from None
    try:
        jobs = Jobs(**{name: _value(name, value) for name, value in table.items()})
        _check(jobs)
    except UserError as error:
        raise UserError(f"jobs {path}: {error}") from None
    return jobs


def _value(name: str, value: Any) -> Any:
    known = [field.name for field in fields(Jobs)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"{name!r} is unknown; {hint}known: {', '.join(known)}")
    if name == "threads":
        given = value if isinstance(value, list) else [value]
        return tuple(_number(name, each, MAX_THREADS) for each in given)
    if name == "rounds":
        return _number(name, value, _MOST_ROUNDS, 3)
    if name == "keys":
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value.values()):
            raise UserError("keys is no table of TARGET = KEY")
        return value
    if name in _TEXTS:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise UserError(f"{name} is no list of texts")
        return tuple(value)
    if not isinstance(value, str):
        raise UserError(f"{name}={value!r} is no text")
    return value


def _number(name: str, value: Any, high: int, low: int = 1) -> int:
    if type(value) is not int or not low <= value <= high:
        raise UserError(f"{name}={value!r} is outside {low}..{high}")
    return value


def _check(jobs: Jobs) -> None:
    """Raise UserError where the parts do not go together."""
    if not (jobs.suites or jobs.workloads or jobs.networks):
        raise UserError("nothing to measure: give suites, workloads or networks")
    if not jobs.targets or not jobs.threads:
        raise UserError("targets and threads are not to be empty")
    for name in {*jobs.targets, *(jobs.keys or {})}:
        Target.parse(name)
    if unused := set(jobs.keys or {}) - set(jobs.targets):
        raise UserError(f"keys names {min(unused)}, which is none of targets")
    if jobs.key and jobs.keys:
        raise UserError("key and keys are both there")
    if bool(jobs.rpc) != bool(jobs.key or jobs.keys):
        raise UserError("rpc and key, or keys, go together: where the tracker is, and which device")
    if jobs.peers and jobs.rpc:
        raise UserError("peers take part on this machine only: without rpc")


class Results:
    """The results of a job file, one line of JSON each in `path`, on disk when they are added.

    A line that was cut off is left out, and its job is done again. Raises UserError where the file
    cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, dict[str, Any]] = {}
        try:
            text = path.read_bytes().decode(errors="replace") if path.exists() else ""
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self._found[_name(entry["job"])] = entry
            except (ValueError, KeyError, TypeError):
                continue
        self._whole = not text or text.endswith("\n")

    def __contains__(self, job: dict[str, Any]) -> bool:
        return _name(job) in self._found

    def of(self, jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The results of jobs that there are."""
        return (self._found[_name(job)] for job in jobs if job in self)

    def add(self, job: dict[str, Any], result: dict[str, Any]) -> None:
        """Keep a result. Raises UserError where it cannot be written."""
        entry = {"job": job, **result}
        start = "" if self._whole else "\n"
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(f"{start}{json.dumps(entry)}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}") from None
        self._whole = True
        self._found[_name(job)] = entry


def _name(job: dict[str, Any]) -> str:
    return json.dumps(job, sort_keys=True)
