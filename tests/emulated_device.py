"""A 64-bit Arm board that is not at hand: Python and TVM's runtime for it, run by qemu-user.

    python tests/emulated_device.py FOLDER
    FOLDER/python -m lpgen.cli rpc-server --tracker 127.0.0.1:9190 --key rpi4

sets it up (once; 20 s, 260 MB) and serves it. Python and its libraries are Debian's packages for
arm64, unpacked into FOLDER; TVM and NumPy are wheels of PyPI for aarch64; lpgen is this checkout.
Just what docs/farm.md calls the small install is there: no compiler, none of the search. A file in
the place of /proc/cpuinfo says that the CPU is a Raspberry Pi 4's. Needs apt-get, dpkg-deb, pip and
qemu-aarch64. What is timed there means nothing.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
EMULATOR = "qemu-aarch64"
CPU = "cortex-a72"
DEBIAN = "python3-minimal", "python3", "libstdc++6"
PINNED = "apache-tvm", "apache-tvm-ffi"
WHEELS = "numpy", "psutil", "click", "filelock", "cloudpickle", "typing_extensions"
"""Besides the pinned ones, all that a device needs."""
COMPILER = "libtvm_compiler.so"

CPUINFO = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""

COMMAND = """\
#!/bin/sh
# The path of this file is what Python starts its children by.
export PYTHONHOME={root}/usr PYTHONPATH={site} PYTHONDONTWRITEBYTECODE=1
exec {emulator} -cpu {cpu} -L {root} -0 "$0" {root}/usr/bin/{python} "$@"
"""


class Unavailable(Exception):
    """Something that cannot be had here; the message says what, and why."""


def set_up(folder: Path) -> Path:
    """The command that is the board's Python. Raises Unavailable."""
    folder = folder.absolute()
    command, root, site = (folder / name for name in ("python", "root", "site"))
    if command.exists():
        _copy_lpgen(site)
        return command
    for program in (EMULATOR, "apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    for package in _debian(folder):
        _run("dpkg-deb", "-x", package, root)
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(CPUINFO)
    python = (root / "usr/bin/python3").resolve().name
    _wheels(site, python.removeprefix("python"))
    _copy_lpgen(site)
    draft = folder / "python.draft"
    made = {"root": root, "site": site, "emulator": shutil.which(EMULATOR), "cpu": CPU}
    draft.write_text(COMMAND.format(python=python, **made))
    draft.chmod(0o755)
    draft.rename(command)
    return command


def _debian(folder: Path) -> list[Path]:
    """The packages and all that they depend on, for arm64. apt-get has a state of its own."""
    apt = folder / "apt"
    for part in ("lists/partial", "archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Install-Recommends": "false",
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
    }
    given = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _run("apt-get", *given, "-q", "update")
    _run("apt-get", *given, "-q", "-y", "--download-only", "install", *DEBIAN)
    return sorted((apt / "archives").glob("*.deb"))


def _wheels(site: Path, version: str) -> None:
    """The wheels, for a Python of that version; the compiler is left out of TVM's."""
    pinned = [need for need in _project()["dependencies"] if re.split("[=<>]", need)[0] in PINNED]
    platforms = [f"manylinux_2_{glibc}_aarch64" for glibc in (28, 27, 17)]
    given = [word for name in platforms for word in ("--platform", name)]
    asked = [*pinned, *WHEELS]
    own = "-q", "--no-deps", "--only-binary=:all:", "--python-version", version
    _run(sys.executable, "-m", "pip", "install", *own, *given, "--target", site, *asked)
    (site / "tvm/lib" / COMPILER).unlink()


def _copy_lpgen(site: Path) -> None:
    """What `pip install --no-deps .` would install."""
    skipped = shutil.ignore_patterns("__pycache__")
    for folder, name in (("lpgen", ""), ("schedules", "schedules"), ("tuning_logs", "tuning_logs")):
        shutil.copytree(ROOT / folder, site / "lpgen" / name, ignore=skipped, dirs_exist_ok=True)
    about = site / "lpgen.dist-info"
    about.mkdir(exist_ok=True)
    version = _project()["version"]
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lpgen\nVersion: {version}\n")


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _run(*words: object) -> None:
    command = [str(word) for word in words]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    except subprocess.SubprocessError as error:
        said = " ".join((getattr(error, "stderr", "") or str(error)).split())
        raise Unavailable(f"{Path(command[0]).name} failed: {said[-200:]}") from None


if __name__ == "__main__":
    try:
        print(set_up(Path(sys.argv[1])))
    except Unavailable as error:
        sys.exit(str(error))
