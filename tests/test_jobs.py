"""Job files: what they say, what is refused, and that a run goes on where it was interrupted."""

import json
from pathlib import Path

import pytest
from command_line import DENSE

from lpgen.bench.jobs import Jobs, Results, read_jobs
from lpgen.errors import UserError
from lpgen.target import detect

MISTAKES = {
    "": "nothing to measure: give suites, workloads or networks",
    "suite = 'resnet18'": "'suite' is unknown; did you mean suites?",
    "suites = 'resnet18'": "suites is no list of texts",
    "suites = [": "jobs jobs.toml: ",
    "suites = ['resnet19']": "suite 'resnet19' is unknown; did you mean resnet18?",
    "suites = ['resnet18']\nbits = 'w9a8'": "bits 'w9a8' are not wXaY",
    "workloads = ['dense m=1']": "missing n=, k=, act=, weight=",
    "workloads = ['dense m=1..9 n=4 k=8 act=u8 weight=s8']": "no range of rows",
    "networks = ['nothing.so']": "nothing.so: no such library",
    "networks = ['nothing.so']\nthreads = 0": "threads=0 is outside 1..1024",
    "networks = ['nothing.so']\nrounds = 2": "rounds=2 is outside 3..1000",
    "networks = ['nothing.so']\ntargets = ['zen9']": "target 'zen9' is unknown",
    "networks = ['nothing.so']\nrpc = 'here:1'": "rpc and key, or keys, go together",
    "networks = ['nothing.so']\nkey = 'rpi4'": "rpc and key, or keys, go together",
    "networks = ['n.so']\nrpc = 'here:1'\nkeys = {avx2 = 'x'}": "keys names avx2, which is none of",
    "networks = ['n.so']\nrpc = 'h:1'\nkey = 'x'\npeers = ['torch']": "peers take part on this",
    "workloads = ['WORKLOAD']\npeers = ['tensorflow']": "tensorflow",
    "workloads = ['WORKLOAD']\nrpc = '127.0.0.1:1'\nkey = 'x'": "no tracker at 127.0.0.1:1",
    "workloads = ['WORKLOAD']\nbits = 'w8a8'": "bits, act, weight and epilogue are for suites",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_one_line(text, lpgen):
    Path("jobs.toml").write_text(text.replace("WORKLOAD", DENSE))
    said = lpgen("bench", "--config", "jobs.toml", status=2)
    assert MISTAKES[text] in said
    assert len(said.splitlines()) == 1


def test_a_job_file_says_all(lpgen):
    assert "none.toml: No such file" in lpgen("bench", "--config", "none.toml", status=2)
    said = lpgen("bench", DENSE, "--config", "none.toml", status=2)
    assert "--config says all but --log, --save and --json" in said


def test_the_defaults(tmp_path):
    path = tmp_path / "jobs.toml"
    path.write_text("workloads = ['x']\nthreads = 2\nrpc = 'h:1'\n[keys]\nnative = 'rpi4'\n")
    assert read_jobs(path) == Jobs(
        workloads=("x",), threads=(2,), rpc="h:1", keys={"native": "rpi4"}
    )
    assert read_jobs(path).key_of("native") == "rpi4"


def test_results_outlive_what_was_cut_off(tmp_path):
    path = tmp_path / "jobs.jsonl"
    first, second = {"target": "a", "threads": 1}, {"target": "b", "threads": 1}
    Results(path).add(first, {"us": 1.0})
    with open(path, "a") as file:
        file.write('{"job": {"target": "b", "thr')
    found = Results(path)
    assert first in found
    assert second not in found
    found.add(second, {"us": 2.0})
    assert [entry["us"] for entry in Results(path).of([second, first])] == [2.0, 1.0]
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        Results(path)


def test_a_run_goes_on_where_it_was_interrupted(lpgen, monkeypatch):
    from lpgen.bench import measure

    other = DENSE.replace("m=4", "m=5")
    Path("jobs.toml").write_text(f"workloads = ['{DENSE}', '{other}']\n")
    real, asked = measure.bench_kernel, []

    def interrupted(library, name, op, threads):
        asked.append(name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(library, name, op, threads)

    monkeypatch.setattr(measure, "bench_kernel", interrupted)
    said = lpgen("bench", "--config", "jobs.toml", status=130)
    assert "interrupted; what was measured is in jobs.jsonl: the same command goes on" in said
    said = lpgen("bench", "--config", "jobs.toml")
    assert asked == [DENSE, other, other]
    assert "[2/2] native, 1 thread: " in said
    found = json.loads(Path("jobs.json").read_text())
    assert [entry["job"]["workload"] for entry in found] == [DENSE, other]
    assert all(entry["measurements"][0]["target"] == detect().name for entry in found)
    assert Path("jobs.native.png").read_bytes().startswith(b"\x89PNG")
