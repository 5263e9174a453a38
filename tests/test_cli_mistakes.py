"""Every mistake on the command line is one line that names the value and the limit."""

from pathlib import Path

import pytest

DENSE = "dense m=4 n=32 k=64 act=u8 weight=s8 out=s32"

MISTAKES = {
    "tun": "command 'tun' is unknown; did you mean tune?",
    "tune": "give WORKLOADs, @FILE or --suite NAME",
    "tune --nope": "No such option '--nope'",
    "tune dense m=1": "missing n=, k=, act=, weight=",
    "tune gemm m=1": "workload kind 'gemm' is unknown; known: conv2d, dense",
    "tune conv2d h=8 w=8 ic=64 oc=64 kernel=3 groups=3 act=u8 weight=s8": (
        "conv2d: groups=3 does not divide ic=64"
    ),
    "tune conv2d h=2 w=2 ic=4 oc=4 kernel=3 act=u8 weight=s8": "conv2d: kernel=3x3",
    f"tune {DENSE} --trials 0": "trials=0 is outside 1..",
    f"tune {DENSE} --trials many": "'many' is not a valid integer",
    f"tune {DENSE} --jobs 0": "jobs=0 is outside 1..",
    f"tune {DENSE} --timeout nan": "timeout=nan is outside",
    f"tune {DENSE} --target zen9": "target 'zen9' is unknown; did you mean zen4 or zen3?",
    f"tune {DENSE} --template avx2/dots": "template: 'avx2/dots' is not known; known: ",
    f"tune {DENSE} --template amx/mma --target sse4": (
        "no template applies on sse4: amx/mma: it is for amx; sse4 has sse4 generic"
    ),
    f"tune {DENSE} --log nowhere/log.jsonl": "log nowhere/log.jsonl: there is no folder",
    f"tune {DENSE} --log .": "log .: is a folder, not a file",
    "tune @nothing": "workload file 'nothing': No such file",
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
    f"build {DENSE} -o lib.so --log nothing.jsonl": "log nothing.jsonl: does not exist",
    "check nothing.so": "nothing.so: No such file",
    "check README": "README: is not a library",
    "bench README": "README: is not a library",
    "bench nothing.so --threads 0": "--threads 0 is outside 1..1024",
    "bench": "give WORKLOADs, @FILE or --suite NAME",
    "bench README --suite resnet18": "README is a library: --suite and formats are for workloads",
    "bench README --against nobody": (
        "peer 'nobody' is unknown; known: litert, onnxruntime, openvino, torch"
    ),
    "bench README --against ,": "--against names no library",
    "bench README --rounds 5": "--rounds and --save are for --against NAMES",
    "show nothing": "nothing: No such file",
    "show .": ".: Is a directory",
    "suites resnet": "suite 'resnet' is unknown; did you mean resnet18?",
    f"export-schedule {DENSE} --template avx2/dot --target sse4": (
        "template avx2/dot does not serve dense m=4 n=32 k=64 act=u8 weight=s8 out=s32: it is for "
        "avx2; sse4 has sse4 generic"
    ),
    "export-schedule": "Missing argument",
    "quickstart --out README": "folder README: ",
    "quickstart --trials -1": "-1 is not in the range 1<=x<=10000",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(lpgen, line):
    Path("README").write_text("no library")
    words = line.split(" ")
    if words[1:2] and words[1] in ("dense", "conv2d", "gemm"):
        end = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
        words = [words[0], " ".join(words[1:end]), *words[end:]]
    text = lpgen(*words, status=2)
    assert text.startswith("lpgen: ")
    assert text.count("\n") == 1
    assert MISTAKES[line] in text


def test_an_unwritable_log_or_output_is_found_before_any_work(lpgen, monkeypatch):
    from lpgen import choose, tune

    def fail(*args, **kwargs):
        raise AssertionError("work has begun")

    monkeypatch.setattr(tune, "tune", fail)
    monkeypatch.setattr(choose, "choose", fail)
    Path("file").touch()
    lpgen("tune", DENSE, "--log", "nowhere/log", status=2)
    lpgen("build", DENSE, "-o", "nowhere/lib.so", status=2)
    monkeypatch.setenv("XDG_DATA_HOME", str(Path("file").absolute()))
    assert "--log FILE names another" in lpgen("tune", DENSE, status=2)
