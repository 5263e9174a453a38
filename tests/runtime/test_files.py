"""Files of libraries: loaded once, damaged, foreign, for several CPUs."""

import gc
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi
from fake_kernel import IdentityLayout, fake_kernel
from loaded import BIPOLAR, BYTES, LARGE

from lpgen import runtime
from lpgen.build import Choice, build, header_path
from lpgen.errors import LibraryError
from lpgen.runtime import files, pages
from lpgen.target import Target, cpu_features, known


def test_files_that_are_no_libraries(path, tmp_path):
    whole = path.read_bytes()
    foreign = bytearray(whole)
    foreign[18] = 183
    small = bytearray(foreign)
    small[4], small[18] = 1, 40
    unheard = bytearray(whole)
    unheard[18] = 252
    newer = resealed(whole.replace(b'{"schema":5,', b'{"schema":7,'))
    damaged = resealed(whole.replace(b'{"schema":5,', b'{"schema":5;'))
    nameless = resealed(whole.replace(b'"workload":', b'"workloaf":'))
    stripped = tmp_path / "stripped.so"
    subprocess.run(["strip", path, "-o", stripped], check=True)
    empty = tmp_path / "empty.c"
    empty.write_text("int nothing;\n")
    subprocess.run(["cc", "-shared", "-fPIC", empty, "-o", tmp_path / "plain.so"], check=True)
    plain = (tmp_path / "plain.so").read_bytes()
    for content, reason in [
        (b"", "is not a library"),
        (b"text, and no end of it" * 10, "is not a library"),
        (whole[:1000], "is cut off at 1000 bytes"),
        (whole[:-1], f"is cut off at {len(whole) - 1} bytes"),
        (bytes(foreign), r"was built for 64-bit Arm, this machine is x86-64$"),
        (bytes(small), r"was built for 32-bit Arm, this machine is x86-64$"),
        (bytes(unheard), r"was built for ELF machine 252, this machine is x86-64$"),
        (newer, "has manifest schema 7, this lpgen reads 5"),
        (damaged, "its manifest is damaged"),
        (nameless, "its manifest is damaged"),
        (stripped.read_bytes(), r"is damaged, or was changed after it was built \(as by strip\)"),
        (plain, "is not an lpgen library"),
    ]:
        file = tmp_path / "some.so"
        file.write_bytes(content)
        with pytest.raises(LibraryError, match=f"^{file}: {reason}") as error:
            runtime.load(file)
        assert "\n" not in str(error.value)
    with pytest.raises(LibraryError, match=r"missing.so: No such file or directory"):
        runtime.load(tmp_path / "missing.so")
    with pytest.raises(LibraryError, match="Is a directory"):
        runtime.load(tmp_path)
    os.mkfifo(tmp_path / "pipe.so")
    with pytest.raises(LibraryError, match="is not a regular file"):
        runtime.load(tmp_path / "pipe.so")


def resealed(library: bytes) -> bytes:
    """The library with the hash of its contents, as the build writes it."""
    place = files.find_hash(library)
    found = files.hash_of(library, place)
    return library[:place] + found + library[place + len(found) :]


def another(library: bytes, number: int) -> bytes:
    """The library as if another version of TVM had built it: one of its own contents."""
    before, version, after = re.split(rb'("tvm":"[^"]+)', library, maxsplit=1)
    name = f'"tvm":"{number}'.encode()
    return resealed(before + name.ljust(len(version), b".") + after)


def test_a_changed_byte_or_length_is_noticed(path, tmp_path):
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    note = files.find_hash(whole)
    places = {*range(64), *range(note - 16, note + 32), *rng.integers(0, len(whole), 700).tolist()}
    file = tmp_path / "some.so"
    for place in places:
        change = 1 << int(rng.integers(8))
        file.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
        with pytest.raises(LibraryError, match=f"^{file}: ") as error:
            runtime.load(file)
        assert "\n" not in str(error.value)
    for size in {0, 1, 63, 64, *rng.integers(0, len(whole), 100).tolist()}:
        file.write_bytes(whole[:size])
        with pytest.raises(LibraryError, match=f"^{file}: ") as error:
            runtime.load(file)
        assert "\n" not in str(error.value)
    file.write_bytes(whole + b"\0")
    with pytest.raises(LibraryError, match="is damaged"):
        runtime.load(file)


def loaded(name: str) -> int:
    """How many libraries of that file name are in this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(f"/memfd:{name} " in line and " r-xp " in line for line in lines)


def test_a_library_is_loaded_once_and_unloaded(path, tmp_path):
    file = tmp_path / "once.so"
    file.write_bytes(another(path.read_bytes(), 1))
    lib = runtime.load(file)
    for _ in range(2500):
        assert runtime.load(file) is not lib
    assert loaded("once.so") == 1
    del lib
    assert loaded("once.so") == 0
    for _ in range(200):
        kernel = runtime.load(file)[BYTES.name]
    x, w = BYTES.random(np.random.default_rng(0))
    y = np.zeros(BYTES.y_shape, np.int32)
    run = kernel.bind(x, kernel.pack_weights(w), out=y)
    del kernel
    gc.collect()
    assert loaded("once.so") == 1
    run()
    del run
    gc.collect()
    assert loaded("once.so") == 0


@pytest.mark.parametrize("nbytes", [0, 4095, pages.LEAST - 1, pages.LEAST, 5 * 2**20 + 3])
def test_a_file_in_huge_pages_has_the_same_bytes(nbytes):
    data = np.random.default_rng(0).integers(0, 256, nbytes, np.uint8).tobytes()
    with open(os.memfd_create("pages"), "w+b") as file:
        file.write(data)
        file.flush()
        huge = pages.in_huge_pages(file.fileno(), nbytes)
        file.seek(0)
        written = file.read()
    assert written[:nbytes] == data
    assert not any(written[nbytes:])
    assert not (huge and nbytes < pages.LEAST)


def test_many_libraries_fit_in_a_process(path, tmp_path):
    """Each with the state of its threads, which the C library has room for in 200 of them."""
    whole = path.read_bytes()
    file = tmp_path / "many.so"
    x, w = LARGE.random(np.random.default_rng(0))
    expected, kernels = LARGE.reference(x, w), []
    for number in range(600):
        file.write_bytes(another(whole, number))
        kernels.append(runtime.load(file)[LARGE.name])
    assert loaded("many.so") == len(kernels)
    packed = kernels[0].pack_weights(w)
    for kernel in kernels[::50]:
        assert np.array_equal(kernel(x, packed, threads=2), expected)


def test_a_rebuilt_library_is_the_new_one(tmp_path, target):
    for op in (BYTES, BIPOLAR):
        build([Choice(op, target, "fake/dense", {}, fake_kernel(op))], tmp_path / "lib.so")
        lib = runtime.load(tmp_path / "lib.so")
        assert lib.kernels == [op.name]
    # Not even one that is overwritten while it is loaded disturbs its callers.
    kernel, (x, w) = lib[BIPOLAR.name], BIPOLAR.random(np.random.default_rng(0))
    packed = kernel.pack_weights(w)
    (tmp_path / "lib.so").write_bytes(b"")
    assert np.array_equal(kernel(x, packed), BIPOLAR.reference(x, w))


def other_cpu(target):
    return replace(target, name="future", features=(*target.features, "avx1024f", "avx1024vl"))


def test_a_library_for_another_cpu_is_refused(tmp_path, target):
    choice = Choice(BYTES, other_cpu(target), "fake/dense", {}, fake_kernel(BYTES))
    path = build([choice], tmp_path / "lib.so")
    with pytest.raises(LibraryError, match=r"for future; this CPU lacks avx1024f, avx1024vl$"):
        runtime.load(path)
    library = runtime.Library(path)  # its manifest can be read all the same
    assert library.workloads == [BYTES.name]
    assert library.kernels == []
    assert library.missing == ("avx1024f", "avx1024vl")
    symbol = library.manifest["kernels"][0]["symbol"]
    run = library._code.get_function(symbol)
    arrays = np.zeros((5, 33), "u1"), np.zeros(295, "u1"), np.zeros((5, 7), "i4")
    with pytest.raises(RuntimeError, match=r"this CPU lacks .*: avx1024f, avx1024vl"):
        run(*map(tvm_ffi.from_dlpack, arrays))


def test_the_library_sees_the_cpu_as_the_targets_do(tmp_path):
    """CPUID in C agrees with what the system says, for every feature of every target."""
    every = tuple(dict.fromkeys(name for row in known().values() for name in row.features))
    target = replace(Target.parse("generic"), features=every)
    choice = Choice(BYTES, target, "fake/dense", {}, fake_kernel(BYTES))
    missing = runtime.Library(build([choice], tmp_path / "lib.so")).missing
    assert set(missing) == set(every) - cpu_features()


def test_the_first_variant_that_runs_is_taken(tmp_path, target):
    targets = [other_cpu(target), target, Target.parse("generic")]
    choices = [Choice(BYTES, t, f"fake/{t.name}", {}, fake_kernel(BYTES)) for t in targets]
    future = Choice(BIPOLAR, targets[0], "fake/future", {}, fake_kernel(BIPOLAR))
    lib = runtime.load(build([*choices, future], tmp_path / "lib.so"))
    assert lib.kernels == [BYTES.name]
    kernel = lib[BYTES.name]
    assert kernel.variant["target"] == target.name
    x, w = BYTES.random(np.random.default_rng(0))
    assert np.array_equal(kernel(x, kernel.pack_weights(w)), BYTES.reference(x, w))
    with pytest.raises(LibraryError, match="built for future; this CPU lacks avx1024f"):
        lib[BIPOLAR.name]


def other_level(target: Target) -> Target:
    """A target of another level that this CPU runs as well."""
    row = Target.parse("sse4" if target.level != "sse4" else "generic")
    if row.missing_on(cpu_features()):
        pytest.skip(f"this CPU does not run {row.name}")
    return row


def test_packed_weights_are_for_one_level(tmp_path, target):
    """The same kernel for two levels: neither takes the other's weights, in C or in Python."""
    kernels = []
    for each in (target, other_level(target)):
        choice = Choice(BYTES, each, "fake/dense", {}, fake_kernel(BYTES))
        kernels.append(runtime.load(build([choice], tmp_path / f"{each.level}.so"))[BYTES.name])
    own, other = kernels
    assert own.identity == other.identity
    x, w = BYTES.random(np.random.default_rng(0))
    packed = other.pack_weights(w)
    with pytest.raises(LibraryError, match=f"weights for CPU level {packed.level}, this is "):
        own(x, packed)
    with pytest.raises(LibraryError, match="packed holds weights for another CPU level"):
        own.packed_weights(packed.numpy())


def test_variants_of_a_kernel_take_packed_weights_of_one_size(tmp_path, target):
    """That of the largest; which of them computes, its plain name decides by the CPU."""
    padded = replace(fake_kernel(BYTES), layout=IdentityLayout(BYTES, padding=100))
    choices = [
        Choice(BYTES, other_cpu(target), "fake/padded", {}, padded),
        Choice(BYTES, target, "fake/dense", {}, fake_kernel(BYTES)),
    ]
    path = build(choices, tmp_path / "lib.so")
    kernel = runtime.load(path)[BYTES.name]
    assert kernel.packed_bytes == 64 + 7 * 33 + 100
    assert kernel.variant["packed_bytes"] == 64 + 7 * 33
    x, w = BYTES.random(np.random.default_rng(0))
    again = kernel.packed_weights(kernel.pack_weights(w).numpy())
    assert np.array_equal(kernel(x, again), BYTES.reference(x, w))
    assert f"{kernel.symbol.upper()}_PACKED_BYTES ((size_t)395)" in header_path(path).read_text()
