"""The compiler in its own process: whatever ends it is a failed build in one line."""

import os
import signal

import psutil
import pytest
from fake_kernel import fake_kernel
from processes import started, wait_for
from tvm import IRModule

from lpgen import templates
from lpgen.algorithms.kernel import Function
from lpgen.build import Choice, build, compiler
from lpgen.build.compiler import compile_apart
from lpgen.errors import CompileError
from lpgen.ops import Dense
from lpgen.ops.signature import Signature
from lpgen.target import Target

pytestmark = pytest.mark.starts

OP = Dense(20, 30, 40, "u8", "s8")
GENERIC = Target.parse("generic")


def working() -> Choice:
    return Choice(OP, GENERIC, "fake/dense", {}, fake_kernel(OP))


def unselectable() -> Choice:
    """A kernel of AMX instructions, for a CPU without: LLVM aborts."""
    template, target = templates.get("amx/mma"), Target.parse("sapphirerapids")
    knobs = template.default(OP, target)
    return Choice(OP, GENERIC, "amx/mma", knobs, template.kernel(OP, target, knobs))


def test_what_llvm_aborts_on_is_a_failed_build(tmp_path):
    reason = (
        "the compiler crashed: SIGABRT while generating machine code: LLVM ERROR: Cannot select"
    )
    with pytest.raises(CompileError, match=f"^{OP.name}: amx/mma for generic: {reason}") as caught:
        build([unselectable()], tmp_path / "lib.so")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert build([working()], tmp_path / "lib.so").exists()


def test_what_tvm_refuses_is_a_failed_build():
    with pytest.raises(CompileError, match=r"^this: the compiler refuses it: \w+: .") as caught:
        compile_apart("this", {"f": Function(IRModule({}), Signature(()))}, GENERIC)
    assert "\n" not in str(caught.value)


def test_one_compiler_serves_all_requests_until_it_is_gone():
    functions = {"f": fake_kernel(OP).function}
    assert "ret" in compile_apart("this", functions, GENERIC).assembly
    first = compiler._compiler.process
    compile_apart("this", functions, GENERIC)
    assert compiler._compiler.process is first
    first.kill()
    compile_apart("this", functions, GENERIC)
    assert compiler._compiler.process is not first


def test_an_interrupt_leaves_no_compiler(monkeypatch):
    compiler.start()
    process = compiler._compiler.process

    def interrupted(request):
        raise KeyboardInterrupt

    monkeypatch.setattr(compiler, "_ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_apart("this", {}, GENERIC)
    assert process.returncode == -signal.SIGKILL


def test_ctrl_c_ends_a_build(tmp_path):
    command = ["build", "--suite", "resnet18", "-o", str(tmp_path / "lib.so")]
    process = started("-m", "lpgen.cli", *command)
    own = psutil.Process(process.pid)
    wait_for(own.children)
    children = own.children()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "lpgen: interrupted")
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() for child in children)
    assert not list(tmp_path.iterdir())
