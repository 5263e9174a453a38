"""Probes and measurements; what is asserted never depends on how fast this machine is."""

import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi

from lpgen import runtime, templates
from lpgen.algorithms.kernel import Function
from lpgen.bench import ComputeProbe, ReadProbe, bench, measure, measured_peak, pinned
from lpgen.bench.laps import level, packed_weights
from lpgen.bench.probes import _read_function
from lpgen.build import build
from lpgen.build.assembly import hot_loops
from lpgen.build.lower import jit, lower
from lpgen.errors import LibraryError
from lpgen.ops import parse
from lpgen.records.choose import choose
from lpgen.runtime.memory import aligned
from lpgen.target import Target, cpu_features, detect

KIB = 1024
GEMM = "dense m=8 n=32 k=64 act=u8 weight=s8 out=s32"
GEMV = "dense m=1 n=256 k=256 act=u8 weight=s8 out=s32"

# Family, target, knobs, and what the loop repeats.
PEAKS = [
    ("x86", "sse4", {}, "pmaddubsw + pmaddwd + paddd xmm"),
    ("x86", "sse4", {"step": "pairs4"}, "pmaddubsw + paddw xmm"),
    ("x86", "avx2", {"step": "words"}, "vpmaddubsw + vpmaddwd + vpaddd ymm"),
    ("x86", "avx2", {"step": "pairs16"}, "vpmaddubsw + vpaddw ymm"),
    ("x86", "avx512bw", {"step": "bytes"}, "vpmaddubsw + vpmaddwd + vpaddd zmm"),
    ("x86", "avx512vnni", {"step": "bytes"}, "vpdpbusd zmm"),
    ("amx", "sapphirerapids", {}, "tdpbusd"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("library") / "two.so"
    return build([choose(GEMM), choose(GEMV)], path)


@pytest.mark.parametrize(("family", "target", "knobs", "instruction"), PEAKS)
def test_a_peak_is_a_loop_of_its_instructions_on_registers(family, target, knobs, instruction):
    target = Target.parse(target)
    peak = templates.peak_of(family, target, knobs)
    assert peak.instruction == instruction
    functions = {"probe": Function.of_module(peak.module)}
    assembly = lower(functions, target).compile().inspect_source("asm")
    (loop,) = hot_loops(assembly)
    names = [line.split()[0] for line in loop.lines if not line.startswith(".")]
    counts = [names.count(name) for name in instruction.split() if len(name) > 4]
    assert min(counts) == max(counts) >= 6, names
    moves = {"movdqa", "movdqu", "vmovdqa", "vmovdqu"}
    allowed = {"decl", "addl", "jne", *moves, *instruction.split()}
    assert sum("(%rsp)" in line for line in loop.lines) <= 8  # few are spilled
    assert set(names) <= allowed


@pytest.mark.parametrize(("family", "target", "knobs", "instruction"), PEAKS)
def test_a_peak_counts_its_operations(family, target, knobs, instruction):
    target = Target.parse(target)
    if missing := target.missing_on(cpu_features()):
        pytest.skip(f"this CPU lacks {', '.join(missing)}")
    peak = templates.peak_of(family, target, knobs)
    x, packed, y = aligned(64), aligned(64), aligned(4 * peak.outputs).view(np.int32)
    x[...] = packed[...] = 1
    jit(peak.module, target)(*map(tvm_ffi.from_dlpack, (x, packed, y)))
    if "dp" in instruction:
        # Each product is 1 * 1, so that the sums count them: an operation more for each addition.
        assert 2 * int(y.sum()) == peak.ops
    else:
        assert y.any()


def test_a_family_without_vectors_has_no_peak():
    generic, avx2 = Target.parse("generic"), Target.parse("avx2")
    assert templates.peak_of("generic", avx2, {}) is None
    assert templates.peak_of("x86", generic, {}) is None
    assert templates.peak_of("nothing", avx2, {}) is None
    assert templates.peak_of("x86", avx2, {}).instruction.endswith(" ymm")


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("nbytes", [128, 4096, 5000, 1 << 16])
def test_the_read_probe_reads_every_byte(nbytes, far):
    data = aligned(nbytes)
    data[...] = np.random.default_rng(0).integers(0, 256, nbytes, dtype=np.uint8)
    result = aligned(128).view(np.int32)
    _read_function(detect(), far)(tvm_ffi.from_dlpack(data), tvm_ffi.from_dlpack(result))
    whole = data[: nbytes // 128 * 128].view(np.int32).reshape(-1, 32)
    assert np.array_equal(result, whole.sum(axis=0, dtype=np.int32))


@pytest.mark.parametrize("threads", [1, 2])
def test_probes_run_on_threads(threads):
    read = ReadProbe([aligned(1 << 16)], itertools.repeat(0), detect(), threads)
    assert read.nbytes >= 1 << 20
    assert read.nbytes % threads == 0
    assert read.run(1) > 0
    peak = templates.peak_of(detect().families[0], detect(), {})
    if peak is not None:
        compute = ComputeProbe(peak, detect(), threads)
        assert compute.ops % (peak.ops * threads) == 0
        assert compute.run(2) > 0


def test_aligned_memory_is_written():
    memory = aligned(10_000)
    assert memory.ctypes.data % 64 == 0
    assert memory.shape == (10_000,)
    assert not memory.any()


def test_pinned_binds_and_restores():
    before = os.sched_getaffinity(0)
    with pinned(1):
        assert len(os.sched_getaffinity(0)) == 1
    with pytest.raises(KeyError), pinned(10_000):
        raise KeyError
    assert os.sched_getaffinity(0) == before


def test_levels():
    machine = replace(detect(), l1d=32 * KIB, l2=KIB * KIB, l3=0)
    sizes = [32 * KIB, 32 * KIB + 1, KIB * KIB, KIB * KIB + 1]
    assert [level(size, machine) for size in sizes] == ["L1", "L2", "L2", "dram"]
    assert level(10 * KIB * KIB, replace(machine, l3=10 * KIB * KIB)) == "L3"


def test_the_lower_roof_binds():
    # 1000 operations at 1e9/s take 1 us, 4000 bytes at 2e9/s take 2 us; the kernel takes 4 us.
    assert measure._roof(4e-6, 1000, 1e9, 4000, 2e9) == ("memory", pytest.approx(0.5))
    assert measure._roof(4e-6, 1000, 2e8, 4000, 2e9) == ("compute", pytest.approx(1.25))
    assert measure._roof(4e-6, 1000, None, 4000, 2e9) == ("memory", pytest.approx(0.5))


def test_bench_measures_every_kernel(library):
    gemm, gemv = bench(library)
    assert (gemm.workload, gemv.workload) == (GEMM, GEMV)
    for m in (gemm, gemv):
        op = parse(m.workload)
        assert m.target == detect().name
        assert 0 < m.us_best <= m.us_median
        assert m.gops == pytest.approx(op.ops / m.us_best * 1e-3)
        packed = runtime.load(library)[m.workload].packed_bytes
        assert m.bytes == packed + np.prod(op.x_shape) + 4 * np.prod(op.y_shape)
        assert not m.cold
        roofs = {"memory": m.bytes / m.bandwidth_gbs * 1e-3}
        if m.peak_gops is not None:
            roofs["compute"] = op.ops / m.peak_gops * 1e-3
        assert m.bound == max(roofs, key=roofs.get)
        assert m.fraction == pytest.approx(roofs[m.bound] / m.us_best)
        assert m.describe()["us_best"] == pytest.approx(m.us_best, rel=1e-4)


def test_a_matrix_vector_product_is_timed_cold(library, monkeypatch):
    small = replace(detect(), l1d=4 * KIB, l2=32 * KIB, l3=256 * KIB)
    monkeypatch.setattr(measure, "detect", lambda: small)
    gemm, gemv = bench(library)
    assert (gemm.cold, gemv.cold) == (False, True)
    assert gemv.level == "dram"
    kernel = runtime.load(library)[GEMV]
    copies = packed_weights(kernel, parse(GEMV), small, 0)
    assert len(copies) == 1 + 2 * small.l3 // kernel.packed_bytes
    assert all(np.array_equal(copy.numpy(), copies[0].numpy()) for copy in copies)
    assert len({copy.numpy().ctypes.data for copy in copies}) == len(copies)


def test_warm_weights_lie_in_the_l3_cache(library, monkeypatch):
    small = replace(detect(), l1d=4 * KIB, l2=32 * KIB, l3=512 * KIB)
    monkeypatch.setattr(measure, "detect", lambda: small)
    gemm, gemv = bench(library, warm=True)
    assert (gemm.cold, gemv.cold) == (False, False)
    assert gemv.level == "L3"
    kernel = runtime.load(library)[GEMV]
    copies = packed_weights(kernel, parse(GEMV), small, 0, warm=True)
    assert 4 * small.l2 < len(copies) * kernel.packed_bytes < small.l3


def test_bench_on_threads(library):
    assert [m.threads for m in bench(runtime.load(library), threads=2)] == [2, 2]


def test_a_template_without_a_peak_takes_that_of_the_cpu():
    generic, native = Target.parse("generic"), detect()
    own = templates.peak_of(native.families[0], native, {})
    probe = measure._compute_probe("generic/generic", {}, generic, native, 1)
    assert (probe and probe.instruction) == (own and own.instruction)
    assert measure._compute_probe("generic/generic", {}, generic, generic, 1) is None
    assert measured_peak("generic/generic", {}, native) != 0


def test_bench_of_no_library(tmp_path):
    with pytest.raises(LibraryError, match="No such file"):
        list(bench(tmp_path / "nothing.so"))


def test_a_bound_call_computes_what_is_in_x_by_then(library):
    kernel, op = runtime.load(library)[GEMM], parse(GEMM)
    rng = np.random.default_rng(0)
    x, w = op.random(rng)
    y = np.empty(op.y_shape, np.int32)
    call = kernel.bind(x, kernel.pack_weights(w), out=y)
    x[...] = op.random(rng)[0]
    call()
    assert np.array_equal(y, op.reference(x, w))
    with pytest.raises(LibraryError, match="x has shape"):
        kernel.bind(x[1:], kernel.pack_weights(w), out=y)
    with pytest.raises(LibraryError, match="not contiguous"):
        kernel.bind(np.asfortranarray(x), kernel.pack_weights(w), out=y)
