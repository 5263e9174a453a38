"""What a wheel of lpgen holds."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("lpgen", "schedules", "tuning_logs", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """A wheel of a copy of the sources, so that no leftovers of other builds enter it."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", out, copy]
    subprocess.run(command, check=True)
    (path,) = out.glob("lpgen-*.whl")
    return zipfile.ZipFile(path)


def files(folder: str, package: str, pattern: str) -> set[str]:
    """Where the files of a folder of the checkout are installed."""
    found = (ROOT / folder).rglob(pattern)
    return {f"{package}/{path.relative_to(ROOT / folder).as_posix()}" for path in found}


def test_it_holds_every_module_and_nothing_else(wheel):
    expected = files("lpgen", "lpgen", "*.py")
    expected |= files("schedules", "lpgen/schedules", "*.py")
    expected |= files("tuning_logs", "lpgen/tuning_logs", "*.py")
    assert {name for name in wheel.namelist() if name.endswith(".py")} == expected
    assert "lpgen/schedules/common/dot/__init__.py" in expected


def test_it_holds_the_sources_of_libraries_and_the_logs(wheel):
    names = set(wheel.namelist())
    sources = files("lpgen/build", "lpgen/build", "*.c") | files(
        "lpgen/build", "lpgen/build", "*.h"
    )
    assert len(sources) >= 6
    assert sources <= names
    assert files("tuning_logs", "lpgen/tuning_logs", "*.jsonl") <= names


def test_it_has_the_command_and_the_license(wheel):
    def read(name: str) -> str:
        path = next(entry for entry in wheel.namelist() if entry.endswith(f".dist-info/{name}"))
        return wheel.read(path).decode()

    assert "lpgen = lpgen.cli:main" in read("entry_points.txt")
    assert "Apache License" in read("licenses/LICENSE")
    metadata = read("METADATA")
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Dist: apache-tvm-ffi==0.1.14.post1" in metadata
