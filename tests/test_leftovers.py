"""What is left of commands that do not come to their end: nothing, or nothing that stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from fake_kernel import fake_kernel
from processes import started, wait_for

from lpgen.build import Choice, build, scratch_folder
from lpgen.build.scratch import PREFIX
from lpgen.cli.ending import Ending
from lpgen.errors import LibraryError
from lpgen.ops import Dense
from lpgen.records import Log
from lpgen.target import Target

DENSE = "dense m=4 n=32 k=64 act=u8 weight=s8"
SMALL = Dense(2, 3, 4, "u8", "s8")


@pytest.fixture
def temporary(tmp_path) -> Path:
    """Where the commands of a test put their temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def command(temporary: Path, *arguments: str) -> subprocess.Popen:
    return started("-m", "lpgen.cli", *arguments, env=os.environ | {"TMPDIR": str(temporary)})


@pytest.fixture
def slow_compiler(tmp_path, monkeypatch) -> Path:
    """A C compiler that starts a process and is not done for minutes; the file it makes first."""
    script = tmp_path / "cc"
    script.write_text(
        f"#!/bin/sh\necho > $TMPDIR/temporary\nsleep 300 &\necho $! > {tmp_path}/pid\nwait\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    return tmp_path / "pid"


def alive(pid: Path) -> bool:
    number = int(pid.read_text())
    return psutil.pid_exists(number) and psutil.Process(number).status() != "zombie"


def test_a_signal_ends_a_build_and_what_it_started(slow_compiler, temporary, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    process = command(temporary, "build", DENSE, "-o", str(out / "lib.so"))
    wait_for(lambda: slow_compiler.exists() and slow_compiler.read_text().strip())
    assert list(temporary.iterdir())
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (128 + signal.SIGTERM, "lpgen: ended by SIGTERM")
    assert not list(temporary.iterdir())
    assert not list(out.iterdir())
    wait_for(lambda: not alive(slow_compiler))


def test_signals_raise_once_and_only_where_nobody_else_handles_them():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Ending() as ending:
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        assert (ending.status, ending.message) == (143, "ended by SIGTERM")
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert (Ending().status, Ending().message) == (130, "interrupted")
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_next_build_removes_what_a_killed_one_left(slow_compiler, temporary, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    process = command(temporary, "build", DENSE, "-o", str(out / "lib.so"))
    wait_for(lambda: slow_compiler.exists() and slow_compiler.read_text().strip())
    process.kill()
    process.communicate()
    (left,) = temporary.iterdir()
    assert not list(out.iterdir())
    with scratch_folder(temporary) as folder:
        assert list(temporary.iterdir()) == [folder]
        assert folder != left
        with scratch_folder(temporary) as other:  # not taken for abandoned
            assert sorted(temporary.iterdir()) == sorted([folder, other])
    assert not list(temporary.iterdir())
    os.kill(int(slow_compiler.read_text()), signal.SIGKILL)


def test_folders_of_others_are_left_alone(temporary):
    (temporary / "lpgen-quickstart").mkdir()
    (temporary / f"{PREFIX}file").write_text("")
    with scratch_folder(temporary):
        pass
    assert len(list(temporary.iterdir())) == 2


def test_a_signal_ends_tuning_and_its_workers(temporary, tmp_path):
    log = Log(tmp_path / "log.jsonl")
    process = command(temporary, "tune", DENSE, "--log", str(log.path), "--jobs", "2")
    wait_for(lambda: log.path.exists() and log.read().records)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    assert not list(temporary.iterdir())  # so that kill -9 would leave nothing either
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGHUP
    assert err.splitlines()[-1].startswith("lpgen: interrupted; what was measured is in")
    assert "Traceback" not in err
    assert not [child for child in children if child.is_running()]
    assert not list(temporary.iterdir())
    assert log.records()


# ---- full disks ----


def small_choice() -> Choice:
    target = Target.parse("native")
    return Choice(SMALL, target, "fake/dense", {}, fake_kernel(SMALL))


FULL_DISK = """
import sys, tempfile
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_leftovers import small_choice
from lpgen.build import build
from lpgen.errors import UserError
tempfile.tempdir = {temporary!r}
Path({full!r}, "filling").write_bytes(bytes(256 * 1024 - {room}))
try:
    build([small_choice()], {out!r})
except UserError as error:
    print(error)
print([path.name for path in Path({full!r}).iterdir()])
"""


@pytest.mark.parametrize(
    ("full", "room"), [("temporary", 4_000), ("temporary", 100_000), ("output", 20_000)]
)
def test_a_full_disk_is_one_line(full, room, temporary, tmp_path):
    """In the folder of temporary files, at once or for the C compiler, or beside the library."""
    folder = tmp_path / "output"
    folder.mkdir()
    disk = folder if full == "output" else temporary
    values = {"tests": str(Path(__file__).parent), "temporary": str(temporary), "full": str(disk)}
    code = FULL_DISK.format(**values, room=room, out=str(folder / "lib.so"))
    mount = f'mount -t tmpfs -o size=256k tmpfs "{disk}" && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file systems can be mounted here")
    run = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True)
    said, left = run.stdout.splitlines()
    assert "No space left on device" in said
    assert left == "['filling']"


def test_an_output_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    from lpgen.build import library

    out = tmp_path / "lib.so"
    out.write_text("old library")

    def full(source, destination):
        Path(destination).write_text("half")
        raise OSError(28, "No space left on device", str(destination))

    monkeypatch.setattr(library.shutil, "copy", full)
    with pytest.raises(LibraryError, match=r"lib.so cannot be built: No space left on device \(/"):
        build([small_choice()], out)
    assert [path.name for path in tmp_path.iterdir()] == ["lib.so"]
    assert out.read_text() == "old library"
