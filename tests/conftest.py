"""Fixtures that tests of several rooms share, and which cases run every day.

A test marked `matrix` runs each of its cases on one level for each algorithm, in rotation, of those
that this CPU has: levels differ in widths and instructions, and each meets its share of the cases.
Of a test marked `sample(n)` every n-th case that is left runs every day. The others are marked
`nightly` (`pytest -m "nightly or not nightly"` runs everything).
"""

import gc
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import DENSE, DEPTHWISE
from filelock import FileLock
from hypothesis import settings
from kernels import LEVELS, WITHOUT_WEIGHTS
from zygote import Zygote, shorten, start_python

from lpgen.supervise import die_with_parent
from lpgen.target import Target, cpu_features

# How long an example takes says nothing on a busy machine.
settings.register_profile("lpgen", deadline=None)
settings.load_profile("lpgen")

if "PYTEST_XDIST_WORKER" in os.environ:
    # It would outlive a killed pytest by seconds, and with it what its tests have started.
    die_with_parent()

# Small kernels are split among threads too: libraries read this when they are loaded.
os.environ["LPGEN_TASK_US"] = "0"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what the rotation of levels leaves out."""
    groups = defaultdict(list)
    for item in items:
        rotates = item.get_closest_marker("matrix") and not item.get_closest_marker("nightly")
        if rotates and _runs(level := _level(item)):
            case = {k: v for k, v in item.callspec.params.items() if k not in ("name", "level")}
            algorithm = level.rpartition("/")[2] if "/" in level else ""
            groups[item.nodeid.partition("[")[0], algorithm, repr(case)].append(item)
    for number, rivals in enumerate(groups.values()):
        for item in rivals:
            if item is not rivals[number % len(rivals)]:
                item.add_marker(pytest.mark.nightly)
    _leave_out(items)


def _leave_out(items: list[pytest.Item]) -> None:
    """Mark what samples leave out of what would run by day."""
    seen: Counter[str] = Counter()
    for item in items:
        if (sample := item.get_closest_marker("sample")) and not item.get_closest_marker("nightly"):
            name = item.nodeid.partition("[")[0]
            if seen[name] % sample.args[0]:
                item.add_marker(pytest.mark.nightly)
            seen[name] += 1


def pytest_collection_finish() -> None:
    """What thousands of tests are made of is no garbage: it is not looked through again."""
    gc.freeze()


def _level(item: pytest.Item) -> str:
    params = item.callspec.params
    return params.get("name") or params["level"]


def _runs(level: str) -> bool:
    return not Target.parse((LEVELS | WITHOUT_WEIGHTS).get(level, level)).missing_on(cpu_features())


@pytest.fixture(scope="session", autouse=True)
def _short_by_day(pytestconfig) -> Iterator[None]:
    """By day processes are forks (see zygote.py), and what is timed has few rounds: neither how
    they start nor how long kernels take is what is tested."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if pytestconfig.option.markexpr == "not nightly":
            shorten(monkeypatch)
            if sys.platform == "linux":
                Zygote().install(monkeypatch)
        yield


@pytest.fixture(autouse=True)
def _processes_start_python(request, monkeypatch) -> None:
    if request.node.get_closest_marker("starts"):
        start_python(monkeypatch)


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """A library of a dense and a depthwise kernel with default knobs, for all workers: the first
    that needs it builds it."""
    from lpgen.build import build
    from lpgen.records.choose import choose

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    path = folder / "small.so"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            build([choose(text, use_shipped=False) for text in (DENSE, DEPTHWISE)], path)
    return path


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, and for the user's logs."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lpgen(home, capfd):
    """Runs a command that has to end with `status`; returns what it printed."""
    from lpgen.cli import app

    def run(*arguments: str, status: int = 0) -> str:
        capfd.readouterr()
        result = app.run(arguments)
        out, err = capfd.readouterr()
        assert result == status, f"{arguments}: {err}"
        return out + err

    return run
