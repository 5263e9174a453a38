"""Farms whose devices, trackers and tuners die, are shared, or are not what they should be.

Devices sleep instead of running kernels, candidates are not compiled, and processes are forked:
what is left is all that the farm itself does.
"""

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from fake_templates import RUNNING, Moody
from forking import Forked, fork_children
from processes import gone, wait_for
from servers import KEY, servers
from simulated_worker import Modelled

from lpgen.errors import TuneError
from lpgen.farm import Farm, link
from lpgen.farm.pool import FarmPool
from lpgen.ops import parse
from lpgen.records import Log
from lpgen.target import Target
from lpgen.tune import CandidateMeasured, tune

pytest.importorskip("tornado", reason="a tracker needs it: pip install 'lpgen[farm]'")
pytest.importorskip("cloudpickle", reason="servers need it: pip install 'lpgen[farm]'")

OP = parse("dense m=4 n=16 k=8 act=u8 weight=s8")
TIMES = tuple(1e-3 * (1 + (7 * n) % 20 / 10) for n in range(20))
"""Seconds of the candidates: 0 is the fastest."""


class QuickPool(FarmPool):
    """Workers that compile nothing."""

    module = "simulated_worker"


class QuickFarm(Farm):
    """A farm with such workers."""

    def pool(self, jobs: int, timeout: float) -> FarmPool:
        return QuickPool(self, jobs, timeout)


@pytest.fixture
def forks(monkeypatch):
    """All processes are forked, from one that has imported what they need; short times."""
    import lpgen.build.lower  # noqa: F401

    Target.parse("native")
    fork_children(monkeypatch)
    monkeypatch.setattr(link, "LEASE", 1.0)
    monkeypatch.setattr(link, "ASIDE", 1.0)


def tuned(tracker, folder: Path, trials: int, timeout: float = 10.0, said=None):
    """A run on all devices; each candidate it was told of is a line of `told` in the folder."""
    log = Log(folder / "log.jsonl")

    def take(event) -> None:
        if isinstance(event, CandidateMeasured):
            line = json.dumps([time.monotonic(), event.knobs, event.failed])
            with (folder / "told").open("a") as told:
                told.write(f"{line}\n")

    how = {"trials": trials, "strategy": "random", "jobs": 1, "timeout": timeout, "log": log}
    say = (lambda line: None) if said is None else said.append
    with QuickFarm(tracker, KEY, say=say) as farm:
        return tune([OP], templates=[Modelled(seconds=TIMES)], farm=farm, on_event=take, **how)[0]


def told(folder: Path) -> list[list]:
    return [json.loads(line) for line in (folder / "told").read_text().splitlines()]


def the_same_command(tracker, folder: Path, trials: int) -> None:
    """What a user does whose tuner has ended: start it again, until it is done."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        tuned(tracker, folder, trials)
    except TuneError:
        os._exit(2)


def family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.mark.parametrize("deaths", [4, pytest.param(100, marks=pytest.mark.nightly)])
def test_deaths_cost_no_record(deaths, forks, tmp_path):
    """Tuner, workers, links, sessions, tracker, servers and devices are killed at random."""
    trials, chance, killed = 6 * deaths + 20, random.Random(deaths), 0
    before = family(os.getpid())  # compilers of other tests, which stay
    kinds = ("tuner", "under the tuner", "tracker or server", "device")
    with servers(3, "sleeping") as farm:
        tuner = Forked(the_same_command, farm.tracker, tmp_path, trials)
        while killed < deaths or tuner.poll() != 0:
            time.sleep(0.5 * chance.random())
            status = tuner.poll()
            assert status in (None, 0, 2, -signal.SIGKILL)
            if status or (status == 0 and killed < deaths):
                trials += 6 * (status == 0)
                tuner = Forked(the_same_command, farm.tracker, tmp_path, trials)
            kind = kinds[killed % len(kinds)] if killed < deaths else None
            serving = farm.processes()
            victims = {
                "tuner": [child for child in family(os.getpid()) if child.pid == tuner.pid],
                "under the tuner": family(tuner.pid),
                "tracker or server": serving,
                "device": [child for server in serving for child in family(server.pid)],
            }.get(kind, [])
            # Not before a candidate was measured: a tuner that is always killed gets nowhere.
            if victims and (tmp_path / "told").exists():
                with contextlib.suppress(psutil.NoSuchProcess):
                    chance.choice(victims).kill()
                    killed += 1
        log = Log(tmp_path / "log.jsonl").records()
        left = [process for process in family(os.getpid()) if process not in before]
    finished = [json.dumps(knobs) for _, knobs, _ in told(tmp_path)]
    logged = [json.dumps(record.knobs) for record in log if not record.best]
    assert len(set(logged)) == len(logged) == trials
    assert set(finished) <= set(logged)
    assert len(finished) == len(set(finished))
    assert any(record.best and record.trials == trials for record in log)
    assert all(gone(process.pid) for process in left)


def test_a_kernel_that_takes_two_devices_with_it_is_blamed(forks, tmp_path):
    """Kernels here are real, and call abort or pause where they run."""
    log, moody = Log(tmp_path / "log.jsonl"), Moody(moods=tuple(RUNNING))
    said = []
    with servers(2) as there, Farm(there.tracker, KEY, say=said.append) as farm:
        (result,) = tune([OP], log=log, templates=[moody], jobs=1, farm=farm, trials=3, timeout=0.5)
        measured = [device.measured for device in farm.devices]
    assert result.best.knobs == {"mood": "good"}
    reasons = {record.knobs["mood"]: record.failed for record in log.records()}
    for mood in ("dies", "waits"):
        assert reasons[mood].startswith("took 2 devices with it"), reasons
    assert sum("was lost" in line for line in said) == 4
    assert sum(measured) == 1


@pytest.mark.nightly
def test_two_tuners_share_three_devices_fairly(forks, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    with servers(3, "sleeping") as farm:
        tuners = []
        for folder in folders:
            folder.mkdir()
            tuners.append(Forked(tuned, farm.tracker, folder, 2000))
            wait_for((folder / "told").exists)
        wait_for(lambda: min(map(len, since_both(folders))) > 100)
        for tuner in tuners:
            tuner.kill()
            tuner.wait()
    first, second = map(len, since_both(folders))
    # One that is refused devices gets a tenth or nothing.
    assert 0.4 < first / second < 2.5, (first, second)


def since_both(folders: list[Path]) -> list[list[float]]:
    """The moments at which each measured something, from when all did."""
    moments = [[moment for moment, *_ in told(folder)] for folder in folders]
    begin = max(first for first, *_ in moments)
    return [[moment for moment in several if moment >= begin] for several in moments]


@pytest.mark.nightly
def test_bad_devices_do_not_change_the_winner(forks, tmp_path):
    """One is three times slower, one computes wrong, one never comes back, and one is good."""
    said = []
    with servers(4, "sleeping", "bad") as farm:
        result = tuned(farm.tracker, tmp_path, 30, timeout=0.5, said=said)
    best = TIMES[result.best.knobs["which"]]
    tried = [knobs["which"] for _, knobs, failed in told(tmp_path) if failed is None]
    assert len(tried) >= 26
    assert best <= 1.05 * min(TIMES[which] for which in tried)
    assert any("it computes wrong what was right before" in line for line in said)
    assert any("was lost" in line for line in said)
