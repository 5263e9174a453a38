"""Libraries that are checked and timed on a device, on this machine: all that the commands say."""

import json
import socket
from contextlib import contextmanager
from pathlib import Path

import networks
import pytest
from command_line import DENSE, DEPTHWISE
from farm_machines import KEY, Machines, free_port

from lpgen.errors import TuneError
from lpgen.farm import Address, libraries, protocol
from lpgen.farm.lease import leased
from lpgen.ops import parse
from lpgen.target import detect

pytest.importorskip("tornado", reason="a tracker needs it: pip install 'lpgen[farm]'")
pytest.importorskip("cloudpickle", reason="servers need it: pip install 'lpgen[farm]'")


@pytest.fixture(scope="module")
def tracker():
    machines = Machines()
    try:
        machines.serve(limit=300)
        yield machines.tracker
    finally:
        machines.close()


@pytest.fixture
def at(tracker):
    return "--rpc", str(tracker), "--key", KEY


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The library of one."""
    from lpgen.network import build

    return str(build(networks.two_layers(), "native", tmp_path_factory.mktemp("net") / "net.so"))


def objects(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.starts
def test_kernels_are_checked_there(lpgen, library, at):
    text = lpgen("check", str(library), *at)
    assert f"device {socket.gethostname()} of key {KEY}: " in text
    assert f"{DENSE}: exact, " in text
    assert "2 of 2 kernels are exact\n" in text
    results = objects(lpgen("check", str(library), *at, "--json"))
    assert [result["exact"] for result in results] == [True, True]
    assert {result["device"] for result in results} == {socket.gethostname()}


def test_a_kernel_that_ends_its_session_is_one_failure(library, tracker, monkeypatch):
    real = libraries.check_kernel

    def check(there, name, seed):
        if name == DENSE:
            there.lease.call("run", name, {}, (1,), "no dtype", 1, seconds=10)
        return real(there, name, seed)

    monkeypatch.setattr(libraries, "check_kernel", check)
    leases = lambda: leased(tracker, KEY, print)  # noqa: E731
    first, second = libraries.check_library(leases, library)
    assert first.failure.startswith(f"device {socket.gethostname()} ended its session: ")
    assert (second.workload, second.failure) == (parse(DEPTHWISE).name, None)


def test_wrong_results_are_found_here(library, tracker, monkeypatch):
    real = libraries.RemoteKernel.__call__

    def call(self, *, out, **given):
        real(self, out=out, **given)
        out.flat[3] += 1

    monkeypatch.setattr(libraries.RemoteKernel, "__call__", call)
    leases = lambda: leased(tracker, KEY, print)  # noqa: E731
    first, _ = libraries.check_library(leases, library)
    assert first.failure.startswith("1 of 128 wrong, the first y[0, 3] = ")


def test_a_network_is_checked_and_timed_there(lpgen, network, at):
    text = lpgen("check", network, *at)
    assert "2 of 2 kernels are exact" in text
    assert "2 of 2 steps are as their kernels alone\n" in text
    (timed,) = objects(lpgen("bench", network, *at, "--json"))
    assert [step["step"] for step in timed["steps"]] == ["first", "second"]
    assert 0 < timed["us_best"] <= timed["us_median"]
    assert timed["device"] == socket.gethostname()
    text = lpgen("bench", network, *at, "--inputs", "nobody=0..1", status=2)
    assert "the network has no input 'nobody'; its inputs: image" in text


def test_kernels_are_timed_there(lpgen, library, at):
    timed = objects(lpgen("bench", str(library), *at, "--json"))
    assert [m["workload"] for m in timed] == [DENSE, parse(DEPTHWISE).name]
    assert all(0 < m["us_best"] <= m["us_median"] and m["bandwidth_gbs"] > 0 for m in timed)
    assert all(m["peak_gops"] > 0 and m["instruction"] for m in timed)
    text = lpgen("bench", DENSE, *at)
    assert text.splitlines()[0].startswith("kernel")
    assert f"device {socket.gethostname()} of key {KEY}: " in text
    (timed,) = objects(lpgen("bench", DENSE, *at, "--json"))
    assert timed["target"] == detect().name


def test_what_a_device_refuses(lpgen, library, tracker, at, tmp_path, monkeypatch):
    assert "--rpc and --key go together" in lpgen("check", "x.so", "--rpc", "h:1", status=2)
    text = lpgen("bench", "x.so", *at, status=2)
    assert "x.so: No such file or directory" in text
    nobody = Address("127.0.0.1", free_port())
    text = lpgen("check", str(library), "--rpc", str(nobody), "--key", KEY, status=2)
    assert f"no tracker at {nobody}: Connection refused" in text
    text = lpgen("check", str(library), "--rpc", str(tracker), "--key", "rpi4", status=2)
    assert f"has no device of key rpi4; keys of its devices: {KEY}" in text
    (tmp_path / "arm.so").write_bytes(b"\x7fELF\x02\x01".ljust(18, b"\0") + b"\xb7\0".ljust(50))
    text = lpgen("bench", "arm.so", *at, status=2)
    assert "arm.so: was built for 64-bit Arm, device " in text
    assert f"of key {KEY} is x86-64" in text
    (tmp_path / "none.so").write_bytes(b"nothing")
    text = lpgen("check", "none.so", *at, status=2)
    assert "is not a library (no ELF file)" in text
    text = lpgen("bench", DENSE, *at, "--against", "all", status=2)
    assert "--against, --model, --variants and --untuned are for this machine" in text
    monkeypatch.setattr(protocol, "version", lambda package: "0.0.1")
    text = lpgen("check", str(library), *at, status=2)
    assert ", this machine 0.0.1: install the same on both" in text


def test_a_job_file_is_measured_there(lpgen, network, tracker):
    said = [f"workloads = ['{DENSE}']", f"networks = ['{network}']"]
    Path("jobs.toml").write_text("\n".join([*said, f"rpc = '{tracker}'", f"key = '{KEY}'"]))
    kernel, whole = objects(lpgen("bench", "--config", "jobs.toml", "--json"))
    assert kernel["measurements"][0]["workload"] == DENSE
    assert len(whole["network"]["steps"]) == 2
    assert {entry["device"] for entry in (kernel, whole)} == {socket.gethostname()}
    assert json.loads(Path("jobs.json").read_text()) == [kernel, whole]
    assert len(Path("jobs.jsonl").read_text().splitlines()) == 2


def test_a_device_is_for_one_at_a_time(tracker):
    said = []
    with leased(tracker, KEY, said.append):
        with pytest.raises(TuneError, match="no result"), _impatient():
            with leased(tracker, KEY, said.append):
                pass
    assert said == [f"all 1 devices of key {KEY} are in use: waiting for one"]


@contextmanager
def _impatient():
    """Nobody waits longer than some seconds."""
    from lpgen.supervise import Child

    real = Child.enter
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Child, "enter", lambda self, doing, limit=3.0: real(self, doing, limit))
        yield
