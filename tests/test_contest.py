"""The process in which libraries take turns: it may die of any of them, and leaves nothing."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from command_line import DENSE

from lpgen.bench.contest import Contest
from lpgen.bench.quiet import wait_until_quiet
from lpgen.errors import LibraryError
from lpgen.target import detect


def test_amx_is_refused_to_a_whole_process():
    code = (
        "from lpgen.bench.isa import refuse_amx; refuse_amx()\n"
        "from lpgen.target import detect; print(detect().families[0])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "AMX cannot be refused" in run.stderr:
        pytest.skip(run.stderr.splitlines()[-1])
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() != ["amx"]


def fake_openvino(folder: Path, on_import: str, on_use: str) -> None:
    """A package openvino that does something when it is imported, and when it is used."""
    head = "import os, signal, time\n"
    (folder / "openvino").mkdir()
    text = f"{head}__version__ = '0'\n{on_import}\n"
    (folder / "openvino" / "__init__.py").write_text(text)
    (folder / "openvino" / "opset13.py").write_text(f"{head}{on_use}\n")


@pytest.mark.sample(3)  # how processes end is told apart in test_supervise
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (
            "os.kill(os.getpid(), signal.SIGSEGV)",
            "crashed: SIGSEGV while running openvino's MatMul",
        ),
        (
            "print('out of luck', flush=True), os._exit(3)",
            "exit status 3 while running openvino's MatMul: out of luck",
        ),
        ("time.sleep(60)", "no result in 3 s of running openvino's MatMul"),
    ],
)
def test_a_library_may_take_the_process_with_it(library, tmp_path, monkeypatch, what, reason):
    fake_openvino(tmp_path, "", what)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with Contest(["openvino"], detect(), rounds=3, limit=3) as made:
        assert made.present == {"openvino": "0"}
        result = made.compare(library, DENSE)
    assert reason in result.refused["openvino MatMul"]
    assert result.ours.us_best > 0


def test_a_library_whose_threads_never_sleep_is_left_out(library, tmp_path, monkeypatch):
    # In Python, so that the thread lets others have the interpreter.
    spin = "def spin():\n    while True:\n        pass\n"
    spinning = f"import threading\n{spin}threading.Thread(target=spin, daemon=True).start()"
    fake_openvino(tmp_path, "", spinning)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with Contest(["openvino"], detect(), threads=2, rounds=3, limit=60) as made:
        result = made.compare(library, DENSE)
    reason = result.refused["openvino MatMul"]
    assert reason.startswith("crashed: exit status 1 while running openvino's MatMul: ")
    assert reason.endswith("its threads still work 2 s after its turn")
    assert result.ours.us_best > 0


def test_threads_are_waited_for():
    asked = threading.Event()

    def work():
        while not asked.is_set():
            pass

    worker = threading.Thread(target=work)
    worker.start()
    assert not wait_until_quiet(limit=0.05)
    asked.set()
    worker.join()
    assert wait_until_quiet(limit=10)


def test_a_library_may_die_while_it_is_imported(library, tmp_path, monkeypatch):
    fake_openvino(tmp_path, "os.kill(os.getpid(), signal.SIGILL)", "pass")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with Contest(["openvino"], detect(), rounds=3) as made:
        assert made.absent == {"openvino": "crashed: SIGILL while running openvino's import"}
        assert made.compare(library, DENSE).entries == ()


def test_a_contest_leaves_nothing(library, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    affinity = os.sched_getaffinity(0)
    with Contest([], detect(), rounds=3) as made:
        process = made._process.process
        made.compare(library, DENSE)
        assert list(tmp_path.iterdir())
    assert process.returncode is not None
    assert not list(tmp_path.iterdir())
    assert os.sched_getaffinity(0) == affinity


def test_a_contest_needs_the_kernel(library):
    with Contest([], detect()) as made, pytest.raises(LibraryError, match="no kernel"):
        made.compare(library, "dense m=1 n=2 k=3 act=u8 weight=s8 out=s32")
