"""Devices over TVM's RPC, on this machine: a tracker, two servers, and all that goes wrong."""

import contextlib
import json
import signal
import socket

import numpy as np
import pytest
from fake_templates import RUNNING, Moody, Tiles
from farm_machines import KEY, Machines, family, free_port
from processes import wait_for

from lpgen.errors import TuneError
from lpgen.farm import Address, Farm, cooling, devices_of, health, listed, trackers
from lpgen.farm.device import Device, describe
from lpgen.farm.protocol import Description, Timed, packed
from lpgen.farm.trackers import Listed
from lpgen.ops import parse
from lpgen.records import Log
from lpgen.target import Target
from lpgen.tune import tune
from lpgen.tune.builder import Builder
from lpgen.tune.messages import Candidate
from lpgen.tune.runner import this_machine

pytest.importorskip("tornado", reason="a tracker needs it: pip install 'lpgen[farm]'")
pytest.importorskip("cloudpickle", reason="servers need it: pip install 'lpgen[farm]'")

OP = parse("dense m=4 n=16 k=8 act=u8 weight=s8")
NATIVE = Target.parse("native")


@pytest.fixture(scope="module")
def machines():
    found = Machines()
    try:
        found.serve()
        found.serve()
        yield found
    finally:
        found.close()


def tuned(machines, tmp_path, templates, said=None, **options):
    log = Log(tmp_path / "log.jsonl")
    said = [] if said is None else said
    with Farm(machines.tracker, KEY, say=said.append) as farm:
        (result,) = tune([OP], log=log, templates=templates, jobs=2, farm=farm, **options)
    return result, log.records(), said


def test_candidates_are_built_here_and_measured_there(machines, tmp_path):
    result, records, said = tuned(machines, tmp_path, [Tiles()], trials=6)
    assert result.trials == 6
    assert result.best.best
    assert not result.failed
    assert {record.cpu for record in records} == {this_machine().cpu}
    assert sum(line.startswith("device ") for line in said) == 2


@pytest.mark.nightly
def test_a_kernel_that_kills_or_holds_its_device_is_blamed_after_two(machines, tmp_path):
    result, records, said = tuned(
        machines, tmp_path, [Moody(moods=tuple(RUNNING))], trials=3, timeout=3.0
    )
    assert result.best.knobs == {"mood": "good"}
    reasons = {record.knobs["mood"]: record.failed for record in records}
    for mood in ("dies", "waits"):
        assert reasons[mood].startswith("took 2 devices with it"), reasons
    assert sum("was lost" in line for line in said) == 4


@pytest.mark.nightly
def test_a_device_that_is_switched_off_costs_no_record(machines, tmp_path):
    wait_for(lambda: machines.count() == 2)
    third = machines.serve()
    try:
        with Farm(machines.tracker, KEY) as farm:
            assert farm.count == 3
            events = []

            def switch_off(event):
                events.append(event)
                if len(events) == 3:
                    for child in family(third.pid):
                        child.kill()
                    third.kill()

            log = Log(tmp_path / "log.jsonl")
            (result,) = tune(
                [OP],
                log=log,
                templates=[Tiles()],
                jobs=3,
                farm=farm,
                trials=12,
                on_event=switch_off,
            )
    finally:
        third.kill()
        machines.processes.remove(third)
    assert result.trials == 12
    assert not result.failed
    assert len([r for r in log.records() if not r.best]) == 12


def test_a_server_that_comes_back_is_waited_for(monkeypatch):
    tracker, there = Address("127.0.0.1", 9190), Listed("board", ("127.0.0.1:9090",), 1, 0)
    gone, seen = there._replace(addresses=(), free=0), []

    def summaries(address):
        seen.append(address)
        return [gone if len(seen) < 3 else there]

    monkeypatch.setattr(trackers, "listed", summaries)
    assert devices_of(tracker, "board") == there
    assert len(seen) == 3
    # A key that nobody ever had is refused at once, one that is gone after a while.
    seen.clear()
    with pytest.raises(TuneError, match="no device of key other; keys of its devices: none at all"):
        devices_of(tracker, "other")
    assert len(seen) == 1
    seen.clear()
    monkeypatch.setattr(trackers, "RETURN", 0.0)
    with pytest.raises(TuneError, match="no device of key board"):
        devices_of(tracker, "board")


def test_what_a_farm_refuses(machines, home):
    wait_for(lambda: machines.count() == 2)
    with pytest.raises(TuneError, match=f"no device of key lost; keys of its devices: {KEY}"):
        devices_of(machines.tracker, "lost")
    nobody = Address("127.0.0.1", free_port())
    with pytest.raises(TuneError, match=r"no tracker at .*: Connection refused"):
        listed(nobody)
    with pytest.raises(TuneError, match=r"'rpi4' is no address: expected HOST:PORT"):
        Address.parse("rpi4")
    with (
        Farm(machines.tracker, KEY, 1) as farm,
        pytest.raises(TuneError, match=f"device .* of key {KEY} .* lacks "),
    ):
        farm.check(Target.parse("cortex-a53" if _has("cortex-a53") else "sapphirerapids"))


def _has(name: str) -> bool:
    from lpgen.errors import UserError

    with contextlib.suppress(UserError):
        return bool(Target.parse(name))
    return False


def test_the_command_lists_devices(machines, lpgen):
    wait_for(lambda: machines.count() == 2)
    said = lpgen("devices", "--rpc", str(machines.tracker), "--json")
    (entry,) = map(json.loads, said.splitlines())
    assert (entry["key"], len(entry["addresses"])) == (KEY, 2)
    assert entry["described"][0]["name"] == socket.gethostname()


@pytest.mark.nightly
def test_a_tracker_that_comes_back_finds_its_devices(tmp_path):
    machines = Machines()
    try:
        machines.serve()
        tracker = machines.processes[0]
        for child in family(tracker.pid):
            child.kill()
        tracker.kill()
        tracker.wait()
        machines.processes[0] = machines._start("rpc-tracker", "--port", str(machines.tracker.port))
        wait_for(machines._answers)
        wait_for(lambda: machines.count() == 1)
        assert tuned(machines, tmp_path, [Tiles()], trials=2)[0].trials == 2
    finally:
        machines.close()


# One session, in this process.


def test_a_session_asks_for_what_it_needs():
    builder, device = Builder(), Device()
    problem = builder.problem(OP, 0)
    built = builder.build(OP, NATIVE, Candidate(Tiles(), Tiles().default(OP, NATIVE)), 0, 1)
    timed = packed(Timed(built, None, 0.0, float("inf")))

    def answer(command, arguments):
        return json.loads(device.call(command, arguments, 60.0))

    assert set(answer("measure", timed)["needs"]) == {problem.key, built.weights}
    assert answer("keep", packed(problem)) == {}
    assert answer("measure", timed) == {"needs": [built.weights]}
    answer("keep", packed(builder.weights(built.weights), problem.key))
    found = answer("measure", timed)
    assert 0 < found["seconds"] < found["took"] < 60
    laps = answer("race", packed(built, built))["laps"]
    assert np.shape(laps)[0] == 2
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    wrong = builder.build(OP, NATIVE, Candidate(Moody(), {"mood": "wrong"}), 0, 1)
    found = answer("measure", packed(Timed(wrong, None, 0.0, float("inf"))))
    assert found == {"failed": "wrong: 64 of 64 results differ on random input"}


def test_a_description_survives_its_text():
    found = describe()
    assert Description.of(json.loads(found.to_json())) == found


def test_heat_and_clock_come_from_the_system(tmp_path):
    zone, cpu = tmp_path / "thermal_zone0", tmp_path / "cpu0" / "cpufreq"
    zone.mkdir()
    cpu.mkdir(parents=True)
    assert health.celsius(tmp_path) is None
    (zone / "temp").write_text("61500\n")
    for name, value in (("scaling_cur_freq", 1200000), ("cpuinfo_max_freq", 1500000)):
        (cpu / name).write_text(f"{value}\n")
    assert health.celsius(tmp_path) == 61.5
    assert health.megahertz(tmp_path) == 1200
    (cpu / "scaling_max_freq").write_text("1500000\n")
    assert not health.throttled(tmp_path, tmp_path)
    (cpu / "scaling_max_freq").write_text("1000000\n")
    assert health.throttled(tmp_path, tmp_path)


def test_a_slower_clock_is_told_from_an_idle_one():
    def at(clock, throttled=False):
        return health.Health(50.0, clock, throttled)

    assert health.slowed(at(1500), at(600))
    assert not health.slowed(at(600), at(1500))
    assert not health.slowed(at(None), at(600))
    assert health.slowed(at(1500), at(1500, throttled=True))
    assert str(at(1500, throttled=True)) == "50 C, 1500 MHz, slowed down by the system"


def test_the_firmware_of_a_board_says_that_it_is_hot(tmp_path):
    firmware = tmp_path / "get_throttled"
    for text, hot in (("0", False), ("4", True), ("50000", False), ("e0008", True)):
        firmware.write_text(f"{text}\n")
        assert health.throttled(tmp_path, tmp_path, firmware) == hot


COOL, HOT = (50.0, 1500.0, False), (85.0, 600.0, True)


class Kettle:
    """A device whose answers come from a list of health, the last for ever."""

    def __init__(self, *later, monkeypatch) -> None:
        self.later, self.said, self.calls = list(later), [], []
        monkeypatch.setattr(cooling, "POLL", 0.0)
        self.cooling = cooling.Cooling("kettle", lambda: self.ask("health"), self.said.append)

    def ask(self, command, *_) -> str:
        self.calls.append(command)
        found = self.later.pop(0) if len(self.later) > 1 else self.later[0]
        names = ("before", "health") if command == "race" else ("health",)
        return json.dumps(dict(zip(names, found if command == "race" else [found], strict=True)))

    def answer(self, command: str) -> str:
        return self.cooling.answer((command, b"", 1.0), self.ask)


def test_a_hot_device_waits_until_it_has_cooled(monkeypatch):
    kettle = Kettle(HOT, HOT, COOL, monkeypatch=monkeypatch)
    kettle.answer("measure")
    kettle.cooling.wait()
    kettle.cooling.wait()
    assert kettle.calls == ["measure", "health", "health"]
    first, last = kettle.said
    assert first.startswith("device kettle is hot (85 C, 600 MHz, slowed down by the system)")
    assert last == "device kettle has cooled after 0 s (50 C, 1500 MHz)"


def test_a_race_in_which_the_device_slowed_down_is_run_again(monkeypatch):
    slower = (*COOL[:1], 600.0, False)
    kettle = Kettle((COOL, HOT), COOL, (COOL, slower), (COOL, COOL), monkeypatch=monkeypatch)
    answer = json.loads(kettle.answer("race"))
    assert (answer["before"], answer["health"]) == ([*COOL], [*COOL])
    assert kettle.calls == ["race", "health", "race", "race"]
    assert [line.split(" (")[0] for line in kettle.said if "race" in line] == [
        "device kettle slowed down in race 1 of 3",
        "device kettle slowed down in race 2 of 3",
    ]


def test_a_device_that_never_cools_does_not_stop_the_run(monkeypatch):
    monkeypatch.setattr(cooling, "LONGEST", 0.01)
    kettle = Kettle(HOT, monkeypatch=monkeypatch)
    kettle.answer("measure")
    kettle.cooling.wait()
    asked = len(kettle.calls)
    kettle.answer("measure")
    kettle.cooling.wait()
    assert len(kettle.calls) == asked + 1
    assert "has not cooled after 0 s" in kettle.said[-1]
    monkeypatch.setattr(kettle, "later", [(HOT, HOT)])
    kettle.answer("race")
    assert kettle.calls[-3:] == ["race"] * 3
    assert "the last race, which counts," in kettle.said[-1]
