"""The pool of threads that every library carries, by itself: tests/c_example/pool.c."""

import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from fake_kernel import fake_kernel

from lpgen import runtime
from lpgen.build import build
from lpgen.build.choice import Choice
from lpgen.errors import LibraryError
from lpgen.ops import Dense
from lpgen.target import Target

SOURCE = Path(__file__).parent / "c_example" / "pool.c"
OP = Dense(20, 30, 9600, "s4", "b1")


def compiled(program: Path, *flags: str) -> Path:
    folder = resources.files("lpgen.build")
    files = [SOURCE, folder / "pool.c", folder / "affinity.c"]
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-O1", "-pthread", *flags, "-I", folder]
    subprocess.run([*map(str, command), *map(str, files), "-o", str(program)], check=True)
    return program


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("pool") / "pool")


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The program that reports races of its threads."""
    program = tmp_path_factory.mktemp("pool") / "watched"
    try:
        compiled(program, "-fsanitize=thread")
    except subprocess.CalledProcessError:
        pytest.skip("the C compiler has no ThreadSanitizer")
    # Where addresses are too random for it, it says so and ends.
    command = ["setarch", "-R", program] if shutil.which("setarch") else [program]
    if subprocess.run([*command, ""], capture_output=True, check=False).returncode != 0:
        pytest.skip("ThreadSanitizer does not run here")
    return command


def run(*command: object) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("spin_us", [0, 100])
@pytest.mark.parametrize("what", ["callers", "fork", "late", "bound", "small"])
def test_every_task_is_done_once(program, what, spin_us):
    assert run(program, what, spin_us) == "ok\n"


@pytest.mark.parametrize("what", ["callers", "late", "bound"])
def test_threads_do_not_race(watched, what):
    assert run(*watched, what, 100) == "ok\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    kernel = fake_kernel(OP, serial=True, parallel=True)
    choice = Choice(OP, Target.parse("native"), "fake/dense", {}, kernel)
    return build([choice], tmp_path_factory.mktemp("pool") / "lib.so")


CALL = """
import sys, numpy as np, lpgen.runtime as runtime
kernel = runtime.load(sys.argv[1])[sys.argv[2]]
packed = kernel.pack_weights(np.ones(kernel.weights.shape, np.int8))
x = np.ones(kernel.arguments["x"].shape, np.int8)
print((kernel(x, packed, threads=1) == 9600).all())
kernel(x, packed, threads=2)
"""


def test_a_wrong_setting_is_said(library):
    command = [sys.executable, "-c", CALL, str(library), OP.name]
    env = os.environ | {"LPGEN_SPIN_US": "50us"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n"
    assert "LPGEN_AFFINITY, LPGEN_SPIN_US or LPGEN_TASK_US is not as in" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("LPGEN_SPIN_US", "", "100 us, 3 us, right"),
        ("LPGEN_SPIN_US", "0", "0 us, 3 us, right"),
        ("LPGEN_SPIN_US", "50us", "100 us, 3 us, wrong"),
        ("LPGEN_SPIN_US", "-1", "100 us, 3 us, wrong"),
        ("LPGEN_SPIN_US", "99999999999999999999", "100 us, 3 us, wrong"),
        ("LPGEN_TASK_US", "7", "100 us, 7 us, right"),
        ("LPGEN_TASK_US", "1.5", "100 us, 3 us, wrong"),
        ("LPGEN_AFFINITY", "", "100 us, 3 us, right"),
        ("LPGEN_AFFINITY", "{0}", "100 us, 3 us, right"),
        ("LPGEN_AFFINITY", "{0}-{0},{0}", "100 us, 3 us, right"),
        ("LPGEN_AFFINITY", "{0},", "100 us, 3 us, wrong"),
        ("LPGEN_AFFINITY", "{0}-", "100 us, 3 us, wrong"),
        ("LPGEN_AFFINITY", "3-1", "100 us, 3 us, wrong"),
        ("LPGEN_AFFINITY", "5000", "100 us, 3 us, wrong"),
        ("LPGEN_AFFINITY", "all", "100 us, 3 us, wrong"),
    ],
)
def test_settings_of_the_environment(program, monkeypatch, name, value, read):
    monkeypatch.delenv("LPGEN_TASK_US")
    monkeypatch.setenv(name, value.format(min(os.sched_getaffinity(0))))
    assert run(program, "settings") == f"{read}\n"


def test_workers_run_where_they_are_told(library):
    loaded = runtime.load(library)
    some = sorted(os.sched_getaffinity(0))
    loaded.set_affinity(some)
    loaded.set_affinity(cpu for cpu in some)
    loaded.set_affinity(None)
    for wrong in ([1023], [-1], [*some, 1 << 40]):
        with pytest.raises(LibraryError, match="one of them may not be used"):
            loaded.set_affinity(wrong)
    with pytest.raises(LibraryError, match="None is the default"):
        loaded.set_affinity([])
