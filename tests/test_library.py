"""Libraries: what is inside, what C programs can rely on, how building fails."""

import ctypes
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_kernel import IdentityLayout, fake_kernel

from lpgen.build import Choice, build, check_output, choice, header_path
from lpgen.build.choice import identity, symbol_of
from lpgen.build.manifest import SCHEMA
from lpgen.errors import LibraryError
from lpgen.ops import Conv2d, Dense
from lpgen.target import ARCHITECTURES, Target

EXAMPLES = Path(__file__).parent / "c_example"
SMALL = Dense(2, 3, 4, "u8", "s8")
LARGE = Dense(20, 30, 9600, "s4", "b1")  # its copies do not fit the stack


@pytest.fixture(scope="module")
def target():
    return Target.parse("native")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, target):
    """A folder with the libraries dense.so (SMALL) and both.so (SMALL and LARGE)."""
    folder = tmp_path_factory.mktemp("library")
    small = Choice(SMALL, target, "fake/dense", {"tile": 4}, fake_kernel(SMALL), seconds=1e-6)
    large = fake_kernel(LARGE, serial=True, parallel=True)
    build([small], folder / "dense.so")
    build([small, Choice(LARGE, target, "fake/dense", {}, large)], folder / "both.so")
    return folder


def names(library: Path, which: str) -> set[str]:
    run = subprocess.run(["nm", "-D", which, library], capture_output=True, text=True, check=True)
    return {line.split()[-1].partition("@")[0] for line in run.stdout.splitlines()}


def compile_c(*arguments):
    command = ["cc", "-Wall", "-Wextra", "-Werror", *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_its_c_compiles_without_warnings(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "cc -Wall -Wextra -Wno-missing-field-initializers -Werror")
    target = Target.parse("native")
    choice = Choice(SMALL, target, "fake/dense", {"tile": 4}, fake_kernel(SMALL))
    build([choice], tmp_path / "lib.so")


def test_only_the_public_names_are_exported(folder):
    symbol = symbol_of(SMALL)
    more = ("pack_weights", "check_weights", "workspace_bytes")
    functions = {symbol, *(f"{symbol}_{name}" for name in more)}
    general = {"manifest", "missing_features", "set_affinity", "target", "set_target"}
    general = {f"lpgen_{name}" for name in general}
    inside = {"__tvm_ffi_lpgen_lacking", "__tvm_ffi_lpgen_variant"}
    exported = functions | general
    in_c = {"lpgen_status_message", "lpgen_targets"}
    for_ffi = {f"__tvm_ffi_{name}" for name in exported}
    found = names(folder / "dense.so", "--defined-only")
    assert found == exported | in_c | for_ffi | inside


def test_nothing_but_the_c_library_is_needed(folder):
    needed = names(folder / "both.so", "--undefined-only")
    weak = {"TVMFFIErrorSetRaisedFromCStr", "TVMFFIStringFromByteArray", "__gmon_start__"}
    weak |= {"_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable", "__cxa_finalize"}
    libc = ctypes.CDLL(None)
    assert {name for name in needed - weak if "tvm" in name.lower()} == set()
    assert all(hasattr(libc, name) for name in needed - weak - {"__tls_get_addr"})
    dynamic = subprocess.run(
        ["readelf", "-d", folder / "both.so"], capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r"NEEDED.*\[(.*)\]", dynamic)) <= {"libc.so.6", "libpthread.so.0"}
    assert "TEXTREL" not in dynamic


def test_the_example_in_c(folder, tmp_path):
    compile_c("-I", folder, EXAMPLES / "dense.c", folder / "dense.so", "-o", tmp_path / "dense")
    run = subprocess.run([tmp_path / "dense"], capture_output=True, text=True, check=True)
    x = np.array([[1, 2, 3, 4], [255] * 4])
    w = np.array([[1] * 4, [-128] * 4, [1, -2, 3, -4]])
    assert [list(map(int, line.split())) for line in run.stdout.splitlines()] == (x @ w.T).tolist()


@pytest.mark.skipif(not shutil.which("c++"), reason="needs a C++ compiler")
def test_the_header_is_c_plus_plus_too(folder, tmp_path):
    program = tmp_path / "main.cpp"
    program.write_text('#include "dense.h"\n#include "both.h"\nint main() { return 0; }\n')
    flags = ["-std=c++11", "-pedantic", "-Wall", "-Werror"]
    subprocess.run(["c++", *flags, "-I", folder, program, "-o", tmp_path / "main"], check=True)


def test_c_programs_can_rely_on_the_header(folder, tmp_path):
    symbol = symbol_of(LARGE)
    defines = [f"-DKERNEL={symbol}", f"-DSIZES={symbol.upper()}", "-include", folder / "both.h"]
    program = tmp_path / "contract"
    compile_c(*defines, "-pthread", EXAMPLES / "contract.c", folder / "both.so", "-o", program)
    x, w = LARGE.random(np.random.default_rng(1))
    files = []
    for name, array in (("x", x), ("w", w), ("y", LARGE.reference(x, w))):
        files.append(tmp_path / name)
        files[-1].write_bytes(array.tobytes())
    run = subprocess.run(
        [program, *files], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.stdout.startswith("ok "), (run.stdout, run.stderr, run.returncode)
    assert json.loads(run.stdout[3:])["schema"] == SCHEMA


def test_a_library_can_be_unloaded_and_loaded_again(folder, tmp_path):
    """Its threads end with it."""
    symbol = symbol_of(LARGE)
    program = tmp_path / "unload.c"
    program.write_text(
        f"""#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <both.h>
#define BYTES(name) {symbol.upper()}_##name
static int threads(void) {{
  int count = 0;
  DIR *tasks = opendir("/proc/self/task");
  while (readdir(tasks)) count++;
  closedir(tasks);
  return count;
}}
int main(int argc, char **argv) {{
  int before = threads();
  for (int i = 0; i < 20 && argc; i++) {{
    void *lib = dlopen(argv[1], RTLD_NOW);
    lpgen_status (*run)() = (lpgen_status(*)())dlsym(lib, "{symbol}");
    lpgen_status (*pack)() = (lpgen_status(*)())dlsym(lib, "{symbol}_pack_weights");
    void *x = calloc(BYTES(X_BYTES), 1), *y = malloc(BYTES(Y_BYTES));
    void *weights = memset(malloc(BYTES(WEIGHTS_BYTES)), 1, BYTES(WEIGHTS_BYTES));
    void *packed = aligned_alloc(64, BYTES(PACKED_BYTES) + 64);
    size_t bytes = BYTES(WORKSPACE_BYTES(4));
    void *workspace = aligned_alloc(64, bytes);
    if (pack(weights, BYTES(WEIGHTS_BYTES), packed, BYTES(PACKED_BYTES))) return 4;
    if (run(x, BYTES(X_BYTES), packed, BYTES(PACKED_BYTES), y, BYTES(Y_BYTES), workspace, bytes, 4))
      return 1;
    if (threads() != before + 3) return 2;
    if (dlclose(lib) != 0 || threads() != before) return 3;
  }}
  return 0;
}}
"""
    )
    compile_c("-I", folder, "-Wno-strict-prototypes", program, "-ldl", "-o", tmp_path / "unload")
    run = subprocess.run([tmp_path / "unload", folder / "both.so"], timeout=60, check=False)
    assert run.returncode == 0


def test_the_manifest_says_what_was_chosen(folder):
    library = ctypes.CDLL(str(folder / "both.so"))
    library.lpgen_manifest.restype = ctypes.c_char_p
    manifest = json.loads(library.lpgen_manifest())
    small, large = manifest["kernels"]
    assert small["workload"] == SMALL.name
    assert small["symbol"] == symbol_of(SMALL)
    given = {"shape": [2, 4], "dtype": "uint8", "alignment": 1, "format": "u8"}
    limits = {"min": 0, "max": 255, "step": 1}
    packed = {"shape": [64 + 12], "dtype": "uint8", "alignment": 64}
    result = {"shape": [2, 3], "dtype": "int32", "alignment": 1, "format": "s32"}
    assert small["arguments"] == [
        {"name": "x", "role": "input", **given, **limits},
        {"name": "packed", "role": "packed", **packed},
        {"name": "y", "role": "output", **result},
    ]
    assert small["parameters"] == []
    (variant,) = small["variants"]
    native = Target.parse("native")
    features = list(native.features)
    assert manifest["targets"] == [
        {"name": native.name, "level": native.level, "features": features}
    ]
    assert variant == {
        **{"target": native.name, "level": native.level},
        **{"template": "fake/dense", "knobs": {"tile": 4}, "seconds": 1e-6},
        **{"packed_bytes": 64 + 12, "identity": variant["identity"]},
        **{"threads": 1, "work": 1e-6},
        "workspace_bytes": {"serial": 0, "per_thread": 0},
        **{"pieces": 1, "origin": "tuned"},
    }
    assert large["weights"]["min"] == -1
    assert large["weights"]["step"] == 2
    assert large["variants"][0]["workspace_bytes"]["per_thread"] == 9600 * 4 // 64 * 64


def test_every_feature_of_every_target_is_known_to_the_check():
    for name, architecture in ARCHITECTURES.items():
        text = (Path(choice.__file__).parent / f"cpu_{name}.c").read_text()
        in_c = set(re.findall(r'^ +\{"([^"]+)",', text, re.MULTILINE))
        assert {feature for row in architecture.rows for feature in row.features} <= in_c


def test_a_c_compiler_for_another_architecture_is_refused(target, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "cc -U__x86_64__")
    choice = Choice(SMALL, target, "fake/dense", {"tile": 4}, fake_kernel(SMALL))
    with pytest.raises(LibraryError, match="kernels for x86-64 need a C compiler for x86-64"):
        build([choice], tmp_path / "small.so")
    assert not list(tmp_path.iterdir())


def test_the_header_numbers_every_status(folder):
    text = (folder / "dense.h").read_text()
    statuses = re.findall(r"^  (LPGEN_[A-Z_]+) = (\d+)", text, re.MULTILINE)
    assert [int(number) for _, number in statuses] == list(range(28))
    assert statuses[0][0] == "LPGEN_OK"
    assert "@" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_packed_weights_tell_kernels_and_builds_apart(target, monkeypatch):
    """By an identity of the operator, what was chosen, and what packs them; the level is another
    field of their header."""
    chosen = Choice(SMALL, target, "fake/dense", {"tile": 4}, None)
    packer = IdentityLayout(SMALL).te_module()
    others = [
        replace(chosen, op=replace(SMALL, act="u4")),
        replace(chosen, template="fake/other"),
        replace(chosen, knobs={"tile": 8}),
    ]
    found = {identity(each, packer) for each in [chosen, *others]}
    found.add(identity(chosen, IdentityLayout(replace(SMALL, k=5)).te_module()))
    assert identity(replace(chosen, seconds=1.0), packer) in found
    assert identity(chosen, IdentityLayout(SMALL).te_module()) in found
    assert len(found) == 5
    monkeypatch.setattr(choice.metadata, "version", lambda name: "0.0.0")
    assert identity(chosen, packer) not in found


def test_symbols_tell_workloads_apart():
    conv = Conv2d(h=56, w=56, ic=64, oc=64, kernel=3, act="u8", weight="s8")
    assert symbol_of(conv).startswith("lpgen_conv2d_3x3_64x56x56_64_u8s8_")
    assert symbol_of(SMALL).startswith("lpgen_dense_2x3x4_u8s8_")
    assert symbol_of(conv) != symbol_of(replace(conv, stride=2))


def test_a_second_level_changes_no_name(target, tmp_path):
    """The plain name is that of all variants; what tells them apart is not exported."""
    targets = (replace(target, name="future", features=("avx1024f",)), target)
    choices = [Choice(SMALL, t, "fake/dense", {}, fake_kernel(SMALL)) for t in targets]
    exported = []
    for number in (1, 2):
        library = build(choices[-number:], tmp_path / "lib.so")
        declared = re.findall(r"^\w+ (lpgen_dense\w+)\(", header_path(library).read_text(), re.M)
        exported.append((names(library, "--defined-only"), declared))
    assert exported[0] == exported[1]
    assert symbol_of(SMALL) in exported[1][1]


# ---- how building fails ----


@pytest.fixture
def small(target):
    return Choice(SMALL, target, "fake/dense", {}, fake_kernel(SMALL))


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("missing/lib.so", "missing/lib.so cannot be written: No such file"),
        ("folder.so", "is a folder"),
        ("lib.txt", "does not end in .so"),
        ("lib", "does not end in .so"),
    ],
)
def test_outputs_that_cannot_be(out, reason, tmp_path, small):
    (tmp_path / "folder.so").mkdir()
    with pytest.raises(LibraryError, match=reason):
        check_output(tmp_path / out)
    with pytest.raises(LibraryError, match=reason):
        build([small], tmp_path / out)


def test_a_failed_build_leaves_everything_as_it_was(tmp_path, small, monkeypatch):
    out = tmp_path / "lib.so"
    out.write_text("old library")
    header_path(out).write_text("old header")
    monkeypatch.setenv("CC", "false")
    with pytest.raises(LibraryError, match="the C compiler false failed"):
        build([small], out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lib.h", "lib.so"]
    assert out.read_text() == "old library"
    assert header_path(out).read_text() == "old header"


def test_without_a_compiler(tmp_path, small, monkeypatch):
    monkeypatch.setenv("CC", "nocompiler -O2")
    with pytest.raises(LibraryError, match=r"no C compiler found \(\$CC=nocompiler\)"):
        build([small], tmp_path / "lib.so")
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LibraryError, match=r"no C compiler found \(cc, gcc, clang\)"):
        build([small], tmp_path / "lib.so")
    assert list(tmp_path.iterdir()) == []


def test_the_compiler_may_be_given_with_options(tmp_path, small, monkeypatch):
    monkeypatch.setenv("CC", "cc -O1")
    assert build([small], tmp_path / "lib.so").exists()


def test_choices_that_cannot_be(tmp_path, small):
    with pytest.raises(LibraryError, match="at least one kernel"):
        build([], tmp_path / "lib.so")
    twice = [small, replace(small, template="other")]
    with pytest.raises(LibraryError, match=f"{SMALL.name}: twice for target"):
        build(twice, tmp_path / "lib.so")
    assert list(tmp_path.iterdir()) == []
