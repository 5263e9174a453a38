"""Linking candidates for this CPU and for others: what is made, and by what."""

import shutil

import pytest
from fake_templates import Tiles

from lpgen.build import toolchain
from lpgen.build.link import linker_of
from lpgen.errors import LibraryError
from lpgen.ops import parse
from lpgen.runtime.files import machine_of
from lpgen.target import Target
from lpgen.tune.builder import Builder
from lpgen.tune.messages import Candidate

OP = parse("dense m=4 n=16 k=8 act=u8 weight=s8")
MACHINES = {"cortex-a53": "64-bit Arm", "cortex-a72": "64-bit Arm", "armv7": "32-bit Arm"}


def built_for(target: Target) -> bytes:
    """The code of a candidate."""
    candidate = Candidate(Tiles(), Tiles().default(OP, target))
    return Builder().build(OP, target, candidate, 0, 1).code


def only(monkeypatch, folder, *names: str) -> None:
    """Leave these programs on the path, as far as they are there, and no package ziglang."""
    found = {name: shutil.which(name) for name in names}
    for name, path in found.items():
        if path:
            (folder / name).symlink_to(path)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize("name", MACHINES)
def test_a_candidate_is_code_of_its_target(name):
    target = Target.parse(name)
    try:
        linker_of(target)
    except LibraryError as error:
        pytest.skip(str(error))
    assert machine_of(built_for(target)) == MACHINES[name]


@pytest.mark.parametrize("linker", ["aarch64-linux-gnu-ld", "ld.lld", "aarch64-linux-gnu-gcc"])
def test_each_way_to_link_for_another_cpu(linker, monkeypatch, tmp_path):
    if shutil.which(linker) is None:
        pytest.skip(f"{linker} is not installed")
    target = Target.parse("cortex-a53")
    if target.is_native:
        pytest.skip("this is such a CPU")
    only(monkeypatch, tmp_path, "ld", linker)
    assert linker_of(target)[0] == linker
    assert machine_of(built_for(target)) == "64-bit Arm"


def test_ziglang_links_without_a_c_library(monkeypatch, tmp_path):
    only(monkeypatch, tmp_path, "ld")
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: name == "ziglang")
    target = Target.parse("armv7")
    assert linker_of(target)[1:] == ["-m", "ziglang", "ld.lld"]


def test_without_a_linker_for_another_cpu(monkeypatch, tmp_path):
    only(monkeypatch, tmp_path, "ld")
    with pytest.raises(LibraryError, match="nothing here links code for arm-linux-gnueabihf") as e:
        linker_of(Target.parse("armv7"))
    for way in ("arm-linux-gnueabihf-ld", "ld.lld", "lpgen[cross]"):
        assert way in str(e.value)
