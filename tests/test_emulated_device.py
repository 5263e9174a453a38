"""A 64-bit Arm board under an emulator serves what this machine builds for it."""

import json
import os
from pathlib import Path

import pytest
from emulated_device import CPU, Unavailable, set_up
from farm_machines import Machines
from processes import wait_for

from lpgen.build.link import linker_of
from lpgen.errors import LibraryError
from lpgen.farm import Address, listed
from lpgen.records import Log
from lpgen.target import Target

pytest.importorskip("tornado", reason="a tracker needs it: pip install 'lpgen[farm]'")
pytest.importorskip("cloudpickle", reason="servers need it: pip install 'lpgen[farm]'")
pytestmark = pytest.mark.nightly

KEY = "rpi4"
WORKLOAD = "dense m=2 n=16 k=64 act=u8 weight=s8"
START = 400.0
"""Seconds in which its Python has to start, on a machine that does a lot else."""


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Where its tracker is. LPGEN_BOARD names the folder of one that is set up already."""
    folder = Path(os.environ.get("LPGEN_BOARD") or tmp_path_factory.mktemp("board"))
    try:
        linker_of(Target.parse(CPU))
        python = set_up(folder)
    except (LibraryError, Unavailable) as error:
        pytest.skip(f"no emulated board: {error}")
    machines = Machines()
    try:
        machines.serve(KEY, START, executable=str(python), cwd=folder)
        yield str(machines.tracker)
    finally:
        machines.close()


@pytest.fixture
def on_board(board, lpgen):
    """Runs a command with the board, which is slow to come back when a session has ended."""
    host, port = board.split(":")

    def run(*arguments: str, status: int = 0) -> str:
        wait_for(lambda: listed(Address(host, int(port))), START)
        return lpgen(*arguments, "--rpc", board, status=status)

    return run


def objects(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_tuning_for_arm_from_here(on_board):
    (found,) = objects(on_board("devices", "--json"))
    assert found["described"][0]["arch"] == "aarch64"
    assert found["described"][0]["machine"]["features"] == ["neon"]
    tuning = "--target", CPU, "--trials", "3", "--jobs", "1", "--log", "log.jsonl"
    on_board("tune", WORKLOAD, *tuning, "--timeout", "60", "--key", KEY)
    records = Log("log.jsonl").records()
    assert sum(record.best for record in records) == 1
    assert {record.target for record in records} == {CPU}
    assert all("0xd08" in record.cpu for record in records if record.seconds)
    refused = on_board("tune", WORKLOAD, "--target", "cortex-a76", "--key", KEY, status=2)
    assert "lacks fullfp16, rdm, dotprod" in refused


def test_a_library_is_checked_and_timed_there(on_board, lpgen):
    lpgen("build", WORKLOAD, "--target", CPU, "-o", "lib.so")
    (checked,) = objects(on_board("check", "lib.so", "--key", KEY, "--json"))
    assert checked["exact"]
    (timed,) = objects(on_board("bench", "lib.so", "--key", KEY, "--json"))
    assert (timed["target"], timed["us_best"] > 0) == (CPU, True)
    assert "0xd08" in timed["cpu"]
    lpgen("build", WORKLOAD, "--target", "cortex-a76", "-o", "newer.so")
    refused = on_board("check", "newer.so", "--key", KEY, status=2)
    assert "lacks fullfp16, rdm, dotprod" in refused
