"""Libraries for several targets: which kernels are in use, their weights, and what is refused."""

import subprocess
from dataclasses import replace

import networks
import numpy as np
import pytest
from fake_kernel import fake_kernel

from lpgen import runtime
from lpgen.build import Choice, build
from lpgen.build.check import check_library
from lpgen.errors import LibraryError, TargetError
from lpgen.network import build as build_network
from lpgen.network.check import check_network
from lpgen.ops import Dense
from lpgen.runtime.memory import aligned_copy
from lpgen.target import Target
from lpgen.target.several import several

BYTES = Dense(5, 7, 33, "u8", "s8")
BIPOLAR = Dense(5, 7, 33, "s4", "b2")

NATIVE = Target.parse("native")
LOWER = replace(Target.parse("generic"), name="lower")
FUTURE = replace(NATIVE, name="future", features=(*NATIVE.features, "avx1024f"))
TARGETS = [FUTURE, NATIVE, LOWER]
NAMES = f"future, {NATIVE.name}, lower"


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch):
    monkeypatch.delenv("LPGEN_TARGET", raising=False)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    choices = [
        Choice(op, target, f"fake/{target.name}", {}, fake_kernel(op))
        for op in (BYTES, BIPOLAR)
        for target in TARGETS
    ]
    return build(choices, tmp_path_factory.mktemp("fat") / "fat.so")


@pytest.fixture(scope="module")
def network_path(tmp_path_factory):
    targets = [NATIVE, Target.parse("generic")]
    path = tmp_path_factory.mktemp("fat") / "two.so"
    return build_network(networks.two_layers(), targets, path)


def exact(library: runtime.Library) -> bool:
    x, w = BYTES.random(np.random.default_rng(0))
    kernel = library[BYTES.name]
    return np.array_equal(kernel(x, kernel.pack_weights(w)), BYTES.reference(x, w))


def test_the_best_target_that_runs_is_in_use(path):
    library = runtime.load(path)
    assert library.targets == ("future", NATIVE.name, "lower")
    assert library.lacking == {"future": ("avx1024f",), NATIVE.name: (), "lower": ()}
    assert (library.target, library.missing) == (NATIVE.name, ())
    assert {library[name].variant["target"] for name in library} == {NATIVE.name}
    assert exact(library)


@pytest.mark.parametrize("asked", ["lower", "generic", NATIVE.name])
def test_a_target_may_be_asked_for(path, monkeypatch, asked):
    """By its name or its level's, by an argument or in the environment; the argument counts."""
    expected = "lower" if asked == "generic" else asked
    library = runtime.load(path, target=asked)
    assert (library.target, library.asked) == (expected, asked)
    assert exact(library)
    monkeypatch.setenv("LPGEN_TARGET", asked)
    assert runtime.load(path).target == expected
    assert runtime.load(path, "lower").target == "lower"
    monkeypatch.setenv("LPGEN_TARGET", "")
    assert runtime.load(path).target == NATIVE.name


def test_targets_are_used_side_by_side_and_told_apart_by_packed_weights(path):
    ours, lower = runtime.load(path)[BYTES.name], runtime.load(path, "lower")[BYTES.name]
    x, w = BYTES.random(np.random.default_rng(0))
    packed = lower.pack_weights(w)
    assert np.array_equal(lower(x, packed), ours(x, ours.pack_weights(w)))
    with pytest.raises(LibraryError, match=r"weights of another build of .*; pack them again$"):
        ours(x, packed)
    with pytest.raises(LibraryError, match="packed holds weights of another kernel or build"):
        ours.packed_weights(packed.numpy())
    assert (ours.variant["level"], lower.variant["level"]) == (NATIVE.level, "generic")


def test_a_changed_byte_of_the_header_is_an_error(path):
    kernel = runtime.load(path, "lower")[BYTES.name]
    x, w = BYTES.random(np.random.default_rng(0))
    packed = kernel.pack_weights(w).numpy()
    rng = np.random.default_rng(1)
    for place in range(64):
        changed = aligned_copy(packed)
        changed[place] ^= rng.integers(1, 256)
        with pytest.raises(
            LibraryError, match=r"packed (does not begin|holds|weights are damaged)"
        ):
            kernel.packed_weights(changed)
        if place < 48:
            with pytest.raises(LibraryError, match=r"packed (does not begin|holds)"):
                kernel(x, kernel.own_weights(changed))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("foo", rf"fat\.so: target 'foo' is not inside; it is built for {NAMES}$"),
        ("lower\0", rf"fat\.so: target 'lower\\x00' is not inside; it is built for {NAMES}$"),
        ("x" * 5000, r"fat\.so: target 'x{80}' is not inside"),
        ("future", rf"built for {NAMES}; this CPU lacks avx1024f \(target future\)$"),
        (5, r"target 5 is no name$"),
    ],
)
def test_a_target_that_is_not_there_is_one_line(path, asked, message):
    with pytest.raises(LibraryError, match=message) as error:
        runtime.load(path, target=asked)
    assert "\n" not in str(error.value)


def test_the_environment_is_named_where_it_is_wrong(path, monkeypatch):
    monkeypatch.setenv("LPGEN_TARGET", "foo")
    with pytest.raises(LibraryError, match=rf"LPGEN_TARGET 'foo' is not inside; .* {NAMES}$"):
        runtime.load(path)
    monkeypatch.setenv("LPGEN_TARGET", "future")
    with pytest.raises(LibraryError, match=r"this CPU lacks avx1024f \(LPGEN_TARGET future\)$"):
        runtime.load(path)
    assert exact(runtime.load(path, "lower"))


def test_kernels_that_are_not_there_for_the_target(tmp_path):
    choices = [
        Choice(BYTES, NATIVE, "fake/dense", {}, fake_kernel(BYTES)),
        Choice(BYTES, LOWER, "fake/dense", {}, fake_kernel(BYTES)),
        Choice(BIPOLAR, LOWER, "fake/dense", {}, fake_kernel(BIPOLAR)),
    ]
    path = build(choices, tmp_path / "uneven.so")
    best = runtime.load(path)
    assert [best[name].variant["target"] for name in best] == [NATIVE.name, "lower"]
    asked = runtime.load(path, NATIVE.name)
    assert asked.kernels == [BYTES.name]
    with pytest.raises(LibraryError, match=rf"built for lower, not for {NATIVE.name} \(target\)$"):
        asked[BIPOLAR.name]
    alike = replace(LOWER, features=())
    choices[2] = Choice(BIPOLAR, alike, "fake/dense", {}, fake_kernel(BIPOLAR))
    with pytest.raises(LibraryError, match="another target lower than that of others"):
        build(choices, tmp_path / "unlike.so")


def test_the_check_takes_a_target(path):
    for name in (None, "lower"):
        results = list(check_library(path, asked=name))
        assert [result.failure for result in results] == [None, None]
        assert {result.target for result in results} == {name or NATIVE.name}


# ---- networks ----


@pytest.mark.parametrize("target", [NATIVE.name, "generic"])
def test_a_network_runs_for_each_target(network_path, target):
    network = networks.two_layers()
    x = networks.example(network)
    library = runtime.load(network_path, target)
    assert library.network.target == target
    np.testing.assert_array_equal(library.network(x), network.reference(x)["y"])
    results = list(check_network(network_path, 0, network, target))
    assert [result.failure for result in results] == [None, None]


def test_weights_beside_are_a_file_for_each_target(tmp_path):
    targets, network = [NATIVE, Target.parse("generic")], networks.two_layers()
    path = build_network(network, targets, tmp_path / "two.so", weights_beside=True)
    x = networks.example(network)
    own, generic = tmp_path / f"two.{NATIVE.name}.weights", tmp_path / "two.generic.weights"
    own.unlink()  # whose kernels are not in use need not be there
    library = runtime.load(path, "generic")
    np.testing.assert_array_equal(library.network(x), network.reference(x)["y"])
    with pytest.raises(LibraryError, match=rf"two\.{NATIVE.name}\.weights: No such file"):
        runtime.load(path).network(x)
    own.write_bytes(generic.read_bytes())
    with pytest.raises(LibraryError, match="holds the weights of another library"):
        runtime.load(path).network(x)
    assert f"LIBRARY.{NATIVE.name}.weights for {NATIVE.name}" in (tmp_path / "two.h").read_text()


# ---- C ----

PROGRAM = """#include <fat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
  const char *now = lpgen_target();
  printf("%s|%s|", now ? now : "none", lpgen_targets());
  void *x = calloc(SIZES_X_BYTES, 1), *y = malloc(SIZES_Y_BYTES), *space = NULL;
  void *weights = memset(malloc(SIZES_WEIGHTS_BYTES), 1, SIZES_WEIGHTS_BYTES);
  void *packed = aligned_alloc(64, (SIZES_PACKED_BYTES + 63) / 64 * 64);
  int status = SYMBOL_pack_weights(weights, SIZES_WEIGHTS_BYTES, packed, SIZES_PACKED_BYTES);
  for (int i = 0; i < argc; i++) {
    if (i > 0) status = lpgen_set_target(strcmp(argv[i], "best") ? argv[i] : NULL);
    printf("%d ", status);
    status = SYMBOL(x, SIZES_X_BYTES, packed, SIZES_PACKED_BYTES, y, SIZES_Y_BYTES, space, 0, 1);
    const char *missing = lpgen_missing_features();
    now = lpgen_target();
    printf("%d %s %s|", status, now ? now : "none", missing ? missing : "-");
  }
  return 0;
}
"""


@pytest.fixture(scope="module")
def program(path, tmp_path_factory):
    from lpgen.build.choice import symbol_of

    folder = tmp_path_factory.mktemp("program")
    symbol = symbol_of(BYTES)
    text = PROGRAM.replace("SYMBOL", symbol).replace("SIZES", symbol.upper())
    (folder / "main.c").write_text(text)
    command = ["cc", "-Wall", "-I", path.parent, folder / "main.c", path, "-o", folder / "main"]
    subprocess.run(command, check=True)
    return folder / "main"


def said(program, *targets, environment=None, **given) -> list[str]:
    given |= {"LPGEN_TARGET": environment} if environment is not None else {}
    run = subprocess.run([program, *targets], env=given, capture_output=True, text=True, check=True)
    return run.stdout.rstrip("|").split("|")


def test_c_programs_choose_a_target(program, path):
    header = (path.parent / "fat.h").read_text()
    number = {
        name: int(header.partition(f"LPGEN_{name} = ")[2].partition("\n")[0].rstrip(","))
        for name in ("CPU", "TARGET", "PACKED_KERNEL")
    }
    cpu, unknown, other = number["CPU"], number["TARGET"], number["PACKED_KERNEL"]
    best = f"0 {NATIVE.name} -"
    assert said(program) == [NATIVE.name, NAMES, f"0 {best}"]
    assert said(program, environment="lower") == ["lower", NAMES, "0 0 lower -"]
    assert said(program, environment="foo")[2] == f"{unknown} {unknown} none -"
    assert said(program, environment="future")[2] == f"{cpu} {cpu} none avx1024f"
    assert said(program, "lower", "foo", "future", "generic", "best")[3:] == [
        f"0 {other} lower -",
        f"{unknown} {unknown} none -",
        f"{cpu} {cpu} none avx1024f",
        f"0 {other} lower -",
        f"0 {best}",
    ]


def test_another_library_of_the_program_does_not_choose(program, tmp_path):
    """Its functions without a kernel's name are found first, by the program, not by this one."""
    choice = Choice(BIPOLAR, NATIVE, "fake/dense", {}, fake_kernel(BIPOLAR))
    first = build([choice], tmp_path / "first.so")
    lines = said(program, environment="lower", LD_PRELOAD=str(first))
    assert lines == ["none", NATIVE.name, "0 0 none -"]


# ---- names ----


def test_several_targets_are_put_in_order():
    names = [target.name for target in several(["sse4", "sapphirerapids", " avxvnni", "avx2"])]
    assert names == ["sapphirerapids", "alderlake", "avx2", "sse4"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["avx2", "zen9"], r"^target 'zen9' is unknown; did you mean zen5 or zen4"),
        (["avx2", ""], r"^target '' is unknown"),
        (["avxvnni", "alderlake"], r"^target alderlake is there twice$"),
        (["cortex-a53", "cortex-a72"], r"every CPU that runs the second takes the first$"),
        (["avx2", "cortex-a53"], r"a library is for one architecture, not for "),
    ],
)
def test_several_targets_are_refused(names, message):
    with pytest.raises(TargetError, match=message):
        several(names)
