"""The command line: what each command prints and leaves."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import DENSE, DEPTHWISE

from lpgen import target as targets
from lpgen.ops import parse, read_workloads
from lpgen.ops.suites import suite

COMMANDS = (
    *("targets", "suites", "tune", "build", "check", "bench", "show"),
    *("export-schedule", "quickstart"),
)


def test_help_lists_every_command(lpgen):
    text = lpgen("--help")
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert text == lpgen("-h")
    assert "WORKLOAD" in lpgen(status=2)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(lpgen, command):
    assert f"Usage: lpgen {command} " in lpgen(command, "--help")


def test_version(lpgen):
    assert lpgen("--version").startswith("lpgen 0.")


def test_help_imports_neither_the_compiler_nor_arrays():
    code = (
        "import sys; from lpgen.cli.app import run; run(['--help']);"
        "print(*{n.partition('.')[0] for n in sys.modules}, file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = set(process.stderr.split())
    assert "click" in loaded
    assert not loaded & {"tvm", "tvm_ffi", "numpy", "rich", "xgboost", "psutil", "filelock"}


def test_targets(lpgen):
    _, *lines, last = lpgen("targets").splitlines()
    assert [line.split()[0] for line in lines] == list(targets.known())
    assert last.startswith("other names: rpi3 (cortex-a53)")
    rows = [json.loads(line) for line in lpgen("targets", "--json").splitlines()]
    assert rows[0]["families"] == ["generic"]


def test_targets_detect(lpgen):
    found = json.loads(lpgen("targets", "--detect", "--json"))
    assert found["name"] == targets.detect().name
    assert found["cpu"] == targets.cpu_fingerprint()
    text = lpgen("targets", "--detect")
    assert found["name"] in text
    assert all(feature in text for feature in found["features"])


def test_suites_are_printed_as_files_of_workloads(lpgen):
    assert lpgen("suites").startswith("resnet18 ")
    Path("layers").write_text(lpgen("suites", "resnet18", "--bits", "w1a2"))
    assert read_workloads(["@layers"]) == suite("resnet18", "u2", "b1")
    Path("both").write_text(lpgen("suites", "resnet18", "--bits", "w1a2,w8a8"))
    both = suite("resnet18", "u2", "b1") + suite("resnet18", "u8", "s8")
    assert read_workloads(["@both"]) == both
    Path("u8").write_text(lpgen("suites", "resnet18", "--epilogue", "out=u8 scale=channel relu"))
    (first, *_) = read_workloads(["@u8"])
    assert first.name.endswith(" act=u8 weight=s8 out=u8 scale=channel clamp=relu")
    (first, *_) = lpgen(
        "suites", "llama_7b", "--act", "s8", "--weight", "t2", "--json"
    ).splitlines()
    assert parse(json.loads(first)["workload"]) == suite("llama_7b", "s8", "t2")[0]


@pytest.mark.parametrize(
    ("target", "instruction"),
    [("generic", "pm"), ("sse4", "pmaddwd"), ("avx2", "vpmaddwd"), ("avx512vnni", "vpdpbusd")],
)
def test_export_schedule_shows_tir_and_hot_loops(lpgen, target, instruction):
    text = lpgen("export-schedule", DENSE, "--target", target)
    title, tir, *loops = text.split("\n\n#")
    assert title.startswith(f"# {DENSE}\n# ")
    assert "T.prim_func" in tir
    assert loops
    assert all(" hot loop of " in loop and instruction in loop for loop in loops)


def test_export_schedule_of_a_template_that_does_not_serve(lpgen):
    text = lpgen(
        "export-schedule", DEPTHWISE, "--target", "avx2", "--template", "x86/dot", status=2
    )
    assert "does not serve conv2d" in text
    Path("two").write_text(f"{DENSE}\n{DENSE.replace('m=4', 'm=5')}\n")
    text = lpgen("export-schedule", "@two", "--target", "sse4", "--no-asm")
    assert text.count("T.prim_func") == 2


def test_a_reader_that_has_enough_is_no_error():
    code = "from lpgen.cli import main; main(['suites', 'mobilenet_v2'] )"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.wait()
    process.stderr.close()
