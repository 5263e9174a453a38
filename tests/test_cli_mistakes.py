"""Every mistake on the command line is one line that names the value and the limit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LONG = "n" * 300
DENSE = "dense m=4 n=32 k=64 act=u8 weight=s8 out=s32"

MISTAKES = {
    "tun": "command 'tun' is unknown; did you mean tune?",
    "tune": "give WORKLOADs, @FILE or --suite NAME",
    "tune --nope": "No such option '--nope'",
    "tune dense m=1": "missing n=, k=, act=, weight=",
    "tune gemm m=1": "workload kind 'gemm' is unknown; known: ",
    "tune conv2d h=8 w=8 ic=64 oc=64 kernel=3 groups=3 act=u8 weight=s8": (
        "conv2d: groups=3 does not divide ic=64"
    ),
    "tune conv2d h=2 w=2 ic=4 oc=4 kernel=3 act=u8 weight=s8": "conv2d: kernel=3x3",
    f"tune {DENSE} --trials 0": "trials=0 is outside 1..",
    f"tune {DENSE} --trials many": "'many' is not a valid integer",
    f"tune {DENSE} --jobs 0": "jobs=0 is outside 1..",
    f"tune {DENSE} --timeout nan": "timeout=nan is outside",
    f"tune {DENSE} --target zen9": "target 'zen9' is unknown; did you mean zen5 or zen4",
    f"tune {DENSE} --template x86/dots": "template: 'x86/dots' is not known; known: ",
    f"tune {DENSE} --template __init__/x": "template: '__init__/x' is not known; known: ",
    f"export-schedule {DENSE} --template x/__init__": "template: 'x/__init__' is not known",
    f"tune {DENSE} --template amx/mma --target sse4": (
        "no template applies on sse4: amx/mma: it is for amx; sse4 has x86 generic"
    ),
    f"tune {DENSE} --log nowhere/log.jsonl": "log nowhere/log.jsonl: there is no folder",
    f"tune {DENSE} --log .": "log .: is a folder, not a file",
    "tune @nothing": "workload file 'nothing': No such file",
    "tune @pipe": "workload file 'pipe': is not a regular file",
    "tune @/dev/zero": "workload file '/dev/zero': is not a regular file",
    "tune @.": "workload file '.': Is a directory",
    "tune @empty": "workload file 'empty' holds no workload",
    f"tune @{LONG}": f"workload file '{LONG}': File name too long",
    "tune --suite resnet19": "suite 'resnet19' is unknown; did you mean resnet18?",
    "tune --suite resnet18 --bits w9a8": "bits 'w9a8' are not wXaY",
    "tune --suite resnet18 --bits w8a8 --act u8 --weight s8": "--bits is said twice",
    "suites resnet18 --epilogue out=u8": "conv2d: out=u8 needs scale=tensor or scale=channel",
    "suites resnet18 --epilogue h=8": "conv2d: 'h=8' gives h a second time",
    "tune --suite resnet18 --act q8": "format encoding 'q' is unknown",
    f"tune {DENSE} --bits w8a8": "--epilogue are for the operators of a --suite",
    f"build {DENSE}": "Missing option '-o' / '--output'",
    f"build {DENSE} -o lib.txt": "output lib.txt does not end in .so",
    f"build {DENSE} -o nowhere/lib.so": "output nowhere/lib.so cannot be written",
    f"build {DENSE} -o {LONG}.so": f"output {LONG}.so cannot be written: File name too long",
    f"build {DENSE} -o lib.so --log pipe": "log pipe: is not a regular file",
    f"build {DENSE} -o lib.so --targets avx2,zen9": "target 'zen9' is unknown; did you mean zen5",
    f"build {DENSE} -o lib.so --targets avx2,,sse4": "target '' is unknown",
    f"build {DENSE} -o lib.so --targets sse4,sse4": "target sse4 is there twice",
    f"build {DENSE} -o lib.so --target avx2 --targets sse4": "--target and --targets",
    "compile nothing.onnx -o lib.so --targets avx2,sse4 --trials 9": "--trials is for one --target",
    f"build {DENSE} -o lib.so --log {LONG}": f"log {LONG}: File name too long",
    f"tune {DENSE} --log {LONG}": f"log {LONG}: File name too long",
    f"build {DENSE} -o lib.so --log nothing.jsonl": "log nothing.jsonl: does not exist",
    "check nothing.so": "nothing.so: No such file",
    "check README": "README: is not a library",
    "check pipe": "pipe: is not a regular file",
    "bench pipe.so": "pipe.so: is not a regular file",
    f"check {LONG}": f"{LONG}: File name too long",
    "bench nothing.so other.so": "nothing.so is a library: one is timed at a time, and alone",
    "bench README": "README: is not a library",
    "bench nothing.so --threads 0": "--threads 0 is outside 1..1024",
    "bench": "give WORKLOADs, @FILE or --suite NAME",
    "bench README --suite resnet18": "README is a library: --suite and formats are for workloads",
    "bench README --target sse4": "README is a library: --target and --log are for workloads",
    "check README --seed -1": "-1 is not in the range 0<=x<=2147483647",
    "quickstart --seed -1": "-1 is not in the range 0<=x<=2147483647",
    "bench README --against nobody": (
        "peer 'nobody' is unknown; known: executorch, litert, llama_cpp, ncnn, onnxruntime, "
        "openvino, torch, zentorch"
    ),
    "bench README --against all --save nowhere/x": "nowhere/x.json: No such file or directory",
    f"bench README --against all --save {LONG}": f"{LONG}.json: File name too long",
    "bench README --against all --save ..": "'..' names no file",
    "bench README --against ,": "--against names no library",
    "bench README --rounds 5": "--rounds and --save are for --against NAMES",
    "show nothing": "nothing: No such file",
    "show .": ".: Is a directory",
    "show pipe": "pipe: is not a regular file",
    "show /dev/zero": "/dev/zero: is not a regular file",
    f"show {LONG}": f"{LONG}: File name too long",
    f"quickstart --out {LONG}": f"folder {LONG}: File name too long",
    "suites resnet": "suite 'resnet' is unknown; did you mean resnet18?",
    f"export-schedule {DENSE} --template avx2/dot --target generic": (
        "template x86/dot does not serve dense m=4 n=32 k=64 act=u8 weight=s8 out=s32: it is for "
        "x86; generic has generic"
    ),
    "export-schedule": "Missing argument",
    "quickstart --out README": "folder README: ",
    "quickstart --trials -1": "-1 is not in the range 1<=x<=10000",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(lpgen, line):
    Path("README").write_text("no library")
    Path("empty").touch()
    os.mkfifo("pipe")
    os.mkfifo("pipe.so")
    words = line.split(" ")
    if words[1:2] and words[1] in ("dense", "conv2d", "gemm"):
        end = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
        words = [words[0], " ".join(words[1:end]), *words[end:]]
    text = lpgen(*words, status=2)
    assert text.startswith("lpgen: ")
    assert text.count("\n") == 1
    assert MISTAKES[line] in text


def test_an_unwritable_log_or_output_is_found_before_any_work(lpgen, monkeypatch):
    from lpgen import tune
    from lpgen.records import choose

    def fail(*args, **kwargs):
        raise AssertionError("work has begun")

    monkeypatch.setattr(tune, "tune", fail)
    monkeypatch.setattr(choose, "choose", fail)
    Path("file").touch()
    lpgen("tune", DENSE, "--log", "nowhere/log", status=2)
    lpgen("build", DENSE, "-o", "nowhere/lib.so", status=2)
    monkeypatch.setenv("XDG_DATA_HOME", str(Path("file").absolute()))
    assert "--log FILE names another" in lpgen("tune", DENSE, status=2)


@pytest.mark.parametrize("compiler", ["'", "no-compiler -O3"])
def test_a_compiler_that_is_none(lpgen, monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    text = lpgen("build", DENSE, "-o", "lib.so", "--target", "generic", status=2)
    assert text.startswith("lpgen: ")
    assert text.count("\n") == 1
    assert compiler.partition(" ")[0] in text


def test_a_library_may_have_a_space_in_its_name(lpgen):
    assert "/a b.so: No such file" in lpgen("bench", "a b.so", status=2)


def test_a_byte_order_mark_is_no_part_of_a_workload(lpgen):
    Path("marked").write_bytes(f"{DENSE}\r\n".encode("utf-8-sig"))
    assert "trials=0" in lpgen("tune", "@marked", "--trials", "0", status=2)


def test_a_long_file_is_no_file_of_workloads(lpgen):
    with open("sparse", "wb") as file:
        file.truncate(1 << 40)
    assert "'sparse' is longer than 16777216 bytes" in lpgen("tune", "@sparse", status=2)


def outcome(command: str, **environment: str) -> tuple[int, bytes]:
    """Status and stderr of a shell command, in which $LPGEN is the command line in a process."""
    environment = os.environ | {"LPGEN": f"{sys.executable} -m lpgen.cli"} | environment
    run = subprocess.run(
        ["bash", "-c", command], env=environment, stderr=subprocess.PIPE, timeout=100, check=False
    )
    return run.returncode, run.stderr


@pytest.mark.parametrize("command", ["targets --detect", "suites --json"])
def test_streams_that_are_closed_or_full(home, command):
    assert outcome(f"$LPGEN {command} >&-") == (0, b"")
    assert outcome(f"$LPGEN {command} <&- >&- 2>&-") == (0, b"")
    assert outcome(f"$LPGEN {command} > file 2>&-") == (0, b"")
    assert outcome(f"$LPGEN {command} >/dev/full") == (
        2,
        b"lpgen: output: No space left on device\n",
    )
    assert outcome(f"$LPGEN {command} | :; exit ${{PIPESTATUS[0]}}")[1] == b""
    assert outcome("$LPGEN tune nothing 2>/dev/full") == (2, b"")


def test_a_file_opened_later_does_not_become_a_closed_stdout(home):
    command = f"$LPGEN tune '{DENSE}' --log log --trials 0 >&-; $LPGEN show log --json >&-"
    assert outcome(command)[0] == 0
    assert Path("log").read_bytes() == b""


def test_names_that_the_locale_cannot_say(home):
    settings = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for name in ("caf\u00e9".encode(), b"caf\xe9"):
        shell = b"".join(b"\\%03o" % byte for byte in name).decode()
        for command in ("show %s", "tune @%s", "suites %s"):
            text = command % f"$'{shell}'"
            status, err = outcome(f"$LPGEN {text}", **settings)
            assert status == 2
            assert err.startswith(b"lpgen: ")
            assert err.count(b"\n") == 1


def test_ctrl_c_before_there_is_a_command():
    code = """
import signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
from lpgen.cli import main
main(["targets"])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (run.returncode, run.stderr) == (130, b"lpgen: interrupted\n")


@pytest.mark.parametrize("command", ["show log", "targets", f"build '{DENSE}' -o lib.so"])
def test_too_little_memory_is_one_line(home, command):
    Path("log").touch()
    status, err = outcome(f"ulimit -v 150000; $LPGEN {command}", OPENBLAS_NUM_THREADS="1")
    assert b"Traceback" not in err
    if status:
        assert err.splitlines()[-1].startswith(b"lpgen: ")
        assert b"`ulimit -v` is 150000 KiB" in err
