"""Processes that crash, hang or leave others behind, and what is said of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from processes import gone

from lpgen.supervise import Child, Gone, receive, run

MODULE = """
import os, signal, subprocess, sys, time
from lpgen.supervise import connect
pipe = connect(*sys.argv[1:3])
{}
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Starts a process that does something; all are stopped after the test."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    started = []

    def start(does: str, **options) -> Child:
        name = f"child{len(started)}"
        (tmp_path / f"{name}.py").write_text(MODULE.format(does))
        started.append(Child(name, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_messages_go_both_ways(child):
    echo = child("while True: pipe.send(pipe.recv())", environment={"LPGEN_TEST": "1"})
    for message in ("one", {"two": 2}):
        echo.send(message)
        assert echo.receive() == message


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", ("crashed: SIGSEGV while thinking", "", "")),
        ("sys.exit(3)", ("crashed: exit status 3 while thinking", "", "")),
        ("pass", ("crashed: exit status 0 while thinking", "", "")),
        (
            "print('LLVM ERROR: no'); print(' bye ', flush=True); os.abort()",
            ("crashed: SIGABRT while thinking", "LLVM ERROR: no", "bye"),
        ),
    ],
)
def test_how_a_process_ended_is_said(child, does, expected):
    one = child(does)
    one.enter("thinking")
    assert one.receive() == Gone(*expected)
    one.send("too late")  # no error
    one.stop()


def test_a_process_that_is_late_is_killed(child):
    one, other = child("time.sleep(100)"), child("pipe.send(1), time.sleep(100)")
    assert other.receive() == 1
    one.enter("sleeping", 0.2)
    other.enter("sleeping", 50)
    ((late, message),) = receive([one, other])
    assert late is one
    assert str(message) == "no result in 0.2 s of sleeping"
    assert one.process.returncode == -signal.SIGKILL


def test_what_a_process_started_ends_with_it(child):
    starts = "pipe.send(subprocess.Popen(['sleep', '100']).pid)"
    for ends in ("time.sleep(100)", "os.abort()"):
        one = child(f"{starts}\n{ends}")
        grandchild = one.receive()
        if ends == "os.abort()":
            assert isinstance(one.receive(), Gone)
        one.stop()
        assert gone(grandchild)


def test_a_process_dies_with_its_parent(tmp_path):
    (tmp_path / "child.py").write_text(MODULE.format("pipe.recv()"))
    code = (
        "import os, sys, time; sys.path.insert(0, sys.argv[1]); from lpgen.supervise import Child\n"
        "print(Child('child').process.pid, flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    assert gone(pid)


def test_what_a_test_started_ends_with_pytest(tmp_path):
    """A command in a session of its own, and the child that it has: nobody else would end them."""
    (tmp_path / "child.py").write_text(MODULE.format("pipe.recv()"))
    command = (
        "import os, sys, time; sys.path.insert(0, sys.argv[1]); from lpgen.supervise import Child\n"
        "print(os.getpid(), Child('child').process.pid, flush=True); time.sleep(100)"
    )
    code = (
        "import sys, time; sys.path[:0] = sys.argv[3:]; from processes import started\n"
        "started('-c', *sys.argv[1:3], stdout=None); time.sleep(100)"
    )
    own = [sys.executable, "-c", code, command, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(own, stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert all(map(psutil.pid_exists, pids))
        parent.kill()
    assert len(pids) == 2
    assert all(map(gone, pids))


def test_ctrl_c_is_for_the_parent(child):
    one = child("pipe.send(os.getpgid(0)), pipe.recv()")
    assert one.receive() == one.process.pid != os.getpgid(0)
    os.kill(one.process.pid, signal.SIGINT)
    one.enter("waiting", 0.3)
    assert str(one.receive()) == "no result in 0.3 s of waiting"


def test_a_program_is_run_in_a_folder(tmp_path):
    assert run(["sh", "-c", "echo $TMPDIR >&2; pwd >&2; exit 4"], tmp_path) == (
        4,
        f"{tmp_path}\n{Path(tmp_path).resolve()}\n",
    )
