import json
import platform
import re
from dataclasses import replace

import pytest

from lpgen import target as targets
from lpgen.errors import TargetError
from lpgen.target import Target, best_row, cpuinfo, detect, host, known, riscv, x86

# The vector and bit extensions that LLVM may choose by itself, beyond which a row may add none and
# below which it may leave none out. The rest that LLVM lists per CPU are tunings, or system and
# cryptographic instructions.
CHOSEN_BY_LLVM = {
    "x86": re.compile(r"sse.*|ssse3|popcnt|avx.*|bmi2?|f16c|fma|lzcnt|movbe|gfni|amx-.*"),
    "arm": re.compile(r"neon|fullfp16|fp16fml|bf16|rdm|dotprod|complxnum|i8mm|sve|sve2.*|sme.*"),
    "armv7": re.compile(r"neon|vfp4|hwdiv-arm"),
    "riscv64": re.compile(r"v|zvl(128|256|512)b|zv(bb|bc|fh|kn|ks)|zb[abcs]"),
}


@pytest.mark.parametrize("name", list(known()))
def test_features_are_those_of_llvm(name):
    codegen = pytest.importorskip("tvm.target.codegen")
    row = Target.parse(name)
    listed = {str(feature) for feature in codegen.llvm_get_cpu_features(row.tvm())}
    assert set(row.features) == set(filter(CHOSEN_BY_LLVM[row.architecture].fullmatch, listed))


@pytest.mark.parametrize("row", known().values(), ids=str)
def test_rows_are_well_formed(row):
    assert Target.parse(row.name) is row
    assert row.families[-1] == "generic"
    assert len(set(row.families)) == len(row.families)
    assert len(set(row.features)) == len(row.features)
    assert 0 < row.l1d < row.l2
    assert row.l3 == 0 or row.l3 > row.l2
    assert row.last_cache == max(row.l2, row.l3)
    assert row.cores > 0
    assert json.loads(json.dumps(row.describe()))["llvm_cpu"] == row.llvm_cpu


def test_families_and_level_follow_from_features():
    assert known()["sapphirerapids"].families == ("amx", "x86", "generic")
    assert known()["avx2"].families == known()["sse4"].families == ("x86", "generic")
    assert known()["generic"].families == ("generic",)
    levels = {name: row.level for name, row in known().items()}
    assert levels["sapphirerapids"] == "amx"
    assert (
        levels["zen5"]
        == levels["zen4"]
        == levels["icelake"]
        == levels["avx512vnni"]
        == "avx512vnni"
    )
    assert (levels["zen3"], levels["sse4"], levels["generic"]) == ("avx2", "sse4", "generic")
    assert (levels["alderlake"], levels["arrowlake"]) == ("avxvnni", "avxvnniint8")
    assert [row.name for row in known()["alderlake"].lenders()] == ["avx2", "sse4", "generic"]
    less = replace(known()["icelake"], features=known()["avx2"].features)
    assert (less.level, less.families) == ("avx2", ("x86", "generic"))


@pytest.mark.parametrize("row", known().values(), ids=str)
def test_a_cpu_with_a_rows_features_gets_that_row(row):
    architecture = targets.ARCHITECTURES[row.architecture]
    told = next(line for line in architecture.rows if line.name == row.name)
    vendor = "AuthenticAMD" if row.name.startswith("zen") else "GenuineIntel"
    vendor, model = told.parts[0] if told.parts else (vendor, -1)
    assert best_row(set(row.features), vendor, architecture, model) is row
    assert row.missing_on(set(row.features)) == ()


@pytest.mark.parametrize(
    ("text", "machine", "expected"),
    [
        ("PI3", "aarch64", "cortex-a53"),
        ("PI4", "aarch64", "cortex-a72"),
        ("PI5", "aarch64", "cortex-a76"),
        ("N1", "aarch64", "aarch64"),  # its text lists no more than NEON
        ("UNKNOWN", "aarch64", "dotprod"),
        ("OLD", "armv7l", "armv7"),  # its text lists no division
        ("PI2", "armv7l", "cortex-a7"),
    ],
)
def test_an_arm_cpu_is_detected_by_implementer_and_part(
    text, machine, expected, monkeypatch, fresh_caches
):
    monkeypatch.setattr(host.platform, "machine", lambda: machine)
    monkeypatch.setattr(host, "cpu", lambda: cpuinfo.parse(globals()[text]))
    assert detect().name == expected


def test_boards_are_other_names_of_rows():
    for alias, name in (("rpi2", "cortex-a7"), ("rpi4", "cortex-a72"), ("rpi5", "cortex-a76")):
        assert Target.parse(alias) is known()[name]


@pytest.mark.parametrize(
    ("row", "without", "falls_to"),
    [
        ("graniterapids", "amx-fp16", "sapphirerapids"),
        ("sapphirerapids", "amx-tile", "icelake"),
        ("tigerlake", "avx512vp2intersect", "icelake"),
        ("icelake", "avx512vpopcntdq", "avx512vnni"),
        ("avx512vnni", "avx512vnni", "avx512bw"),
        ("cooperlake", "avx512bf16", "avx512vnni"),
        ("avx512bw", "avx512vl", "avx2"),
        ("arrowlake", "avxvnniint8", "alderlake"),
        ("alderlake", "avxvnni", "avx2"),
        ("avx2", "fma", "sse4"),
        ("sse4", "popcnt", "generic"),
    ],
)
def test_one_missing_feature_falls_to_the_next_row(row, without, falls_to):
    features = set(known()[row].features) - {without}
    assert best_row(features, "GenuineIntel").name == falls_to
    assert known()[row].missing_on(features) == (without,)


def test_zen_rows_are_for_amd():
    zen4 = set(known()["zen4"].features)
    assert best_row(zen4, "AuthenticAMD").name == "zen4"
    assert best_row(set(known()["zen5"].features), "GenuineIntel").name == "tigerlake"
    assert best_row(zen4, "GenuineIntel").name == "icelake"
    assert best_row(zen4 - {"avx512vnni"}, "AuthenticAMD").name == "avx512bw"
    assert best_row(set(), "AuthenticAMD").name == "generic"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("av512vnni", r"target 'av512vnni' is unknown; did you mean avx512vnni or .*known: native"),
        ("zen6", r"did you mean zen5 or zen4 or zen3\?"),
        ("nativ", r"did you mean native"),
        ("qqq", r"^target 'qqq' is unknown; known: native, generic, sse4,"),
    ],
)
def test_unknown_target_lists_the_near_ones(name, message):
    with pytest.raises(TargetError, match=message):
        Target.parse(name)


CPUINFO = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9654 96-Core Processor
stepping\t: 1
flags\t\t: fpu sse sse2 pni ssse3 sse4_1 sse4_2 popcnt abm bmi1 avx avx2
bugs\t\t:

processor\t: 1
vendor_id\t: other
"""

ARM_CORE = """\
processor\t: {}
BogoMIPS\t: 38.40
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: {}
CPU part\t: {}
CPU revision\t: {}

"""
PI3 = ARM_CORE.format(0, "0x0", "0xd03", 4) + ARM_CORE.format(1, "0x0", "0xd03", 4)
PI4 = ARM_CORE.format(0, "0x0", "0xd08", 3) + "Hardware\t: BCM2835\n"
N1 = ARM_CORE.format(0, "0x3", "0xd0c", 1)
RK3399 = ARM_CORE.format(0, "0x0", "0xd03", 4) + ARM_CORE.format(4, "0x0", "0xd08", 2)
DOTPROD = "fp asimd evtstrm aes atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
PI5 = ARM_CORE.format(0, "0x4", "0xd0b", 1).replace("fp asimd evtstrm", DOTPROD)
UNKNOWN = PI5.replace("0xd0b", "0xfff")
# Before Linux 3.8 and on some kernels for phones, what the cores share comes last.
OLD = """\
Processor\t: ARMv7 Processor rev 5 (v7l)
processor\t: 0
BogoMIPS\t: 38.40

Features\t: half thumb neon vfpv4
CPU implementer\t: 0x41
CPU architecture: 7
CPU variant\t: 0x0
CPU part\t: 0xc07
CPU revision\t: 5

Hardware\t: BCM2709
"""
PI2 = OLD.replace("neon vfpv4", "neon vfpv4 idiva")
RISCV = """\
processor\t: 0
hart\t\t: 1
isa\t\t: rv64imafdcv_zba_zbb
mmu\t\t: sv39
uarch\t\t: spacemit,x60
mvendorid\t: 0x710
marchid\t\t: 0x8000000058000001
mimpid\t\t: 0x1000000049772200
"""


def test_cpuinfo_is_read():
    assert cpuinfo.parse(CPUINFO, "no board") == cpuinfo.Cpu(
        "AuthenticAMD",
        "AMD EPYC 9654 96-Core Processor",
        *(25, 17, 1),
        frozenset("fpu sse sse2 pni ssse3 sse4_1 sse4_2 popcnt abm bmi1 avx avx2".split()),
    )


@pytest.mark.parametrize(
    ("text", "board", "expected"),
    [
        (PI3, "Raspberry Pi 3", ("0x41", "Raspberry Pi 3 (0xd03 r0p4)", 8, 0xD03, 4)),
        (PI4, "", ("0x41", "BCM2835 (0xd08 r0p3)", 8, 0xD08, 3)),
        (N1, "", ("0x41", "(0xd0c r3p1)", 8, 0xD0C, 0x31)),
        (RK3399, "", ("0x41", "(0xd03 r0p4 + 0xd08 r0p2)", 8, 0xD03, 4)),
        (OLD, "", ("0x41", "BCM2709 (0xc07 r0p5)", 7, 0xC07, 5)),
    ],
    ids=["pi3", "pi4", "n1", "rk3399", "old"],
)
def test_boards_with_arm_are_told_apart(text, board, expected):
    cpu = cpuinfo.parse(text, board)
    assert (cpu.vendor, cpu.brand, cpu.family, cpu.model, cpu.stepping) == expected
    assert {"asimd", "neon"} & cpu.flags


def test_cpuinfo_of_riscv():
    cpu = cpuinfo.parse(RISCV, "Banana Pi BPI-F3")
    assert cpu.vendor == "0x710"
    assert cpu.brand == "Banana Pi BPI-F3 spacemit,x60 rv64imafdcv_zba_zbb"
    assert (cpu.model, cpu.stepping) == (0x8000000058000001, 0x1000000049772200)
    assert cpu.flags == {*"imafdcv", "zba", "zbb"}


@pytest.mark.parametrize(
    ("isa", "bits", "expected"),
    [
        ("rv64imafdc_zba", 128, "riscv64"),
        ("rv64imafdcv_zba_zbb", 128, "rvv"),
        ("rv64imafdcvh_zba_zbb_zbs_zvbb_zvkb", 128, "rva23"),
        ("rv64imafdcv_zba_zbb", 512, "rvv256"),
        ("rv64imafdcv_zba_zbb_zbs_zvbb", 256, "rva23-v256"),
        ("rv64imafdcv_zba_zbb_zbs_zvbb", 2048, "riscv64"),
    ],
)
def test_a_riscv_cpu_is_detected_by_its_extensions(isa, bits, expected, monkeypatch, fresh_caches):
    text = RISCV.replace("rv64imafdcv_zba_zbb", isa)
    monkeypatch.setattr(host.platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(host, "cpu", lambda: cpuinfo.parse(text))
    monkeypatch.setattr(riscv, "vector_bits", lambda: bits)
    assert detect().name == expected


@pytest.mark.parametrize("text", ["garbage\n", "", "model\t: ?\nstepping\t: -3"])
def test_cpuinfo_of_another_kind_gives_no_features(text):
    assert cpuinfo.parse(text) == cpuinfo.Cpu()


@pytest.fixture
def fresh_caches():
    kept = (host.cpu, targets.cpu_features, targets.detect)
    for function in kept:
        function.cache_clear()
    yield
    for function in kept:
        function.cache_clear()


def test_features_in_llvm_spelling(monkeypatch, fresh_caches):
    monkeypatch.setattr(host, "cpu", lambda: cpuinfo.parse(CPUINFO))
    expected = {"sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "lzcnt", "bmi"}
    assert targets.cpu_features() == expected | {"avx", "avx2"}


@pytest.mark.parametrize("granted", [True, False])
def test_amx_is_offered_only_when_permitted(monkeypatch, fresh_caches, granted):
    flags = frozenset({"sse", "sse2", "amx_tile", "amx_int8", "amx_bf16"})
    monkeypatch.setattr(host, "cpu", lambda: cpuinfo.Cpu(flags=flags))
    monkeypatch.setattr(x86, "amx_permitted", lambda features: granted)
    amx = {"amx-tile", "amx-int8", "amx-bf16"} if granted else set()
    assert targets.cpu_features() == {"sse", "sse2"} | amx


def test_amx_is_not_asked_for_where_the_cpu_lacks_it():
    assert not x86.amx_permitted({"avx2"})


def test_caches_are_read(tmp_path):
    for number, (level, kind, size) in enumerate(
        [("1", "Data", "48K"), ("1", "Instruction", "64K"), ("2", "Unified", "2M")]
    ):
        entry = tmp_path / f"index{number}"
        entry.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (entry / name).write_text(text + "\n")
    (tmp_path / "index3").mkdir()
    assert host.caches(tmp_path) == {"l1d": 48 << 10, "l2": 2 << 20}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="native targets are x86-64 only")
def test_native_is_a_row_of_the_table_that_runs_here():
    here = Target.parse("native")
    assert here is detect()
    row = known()[here.name]
    assert (here.features, here.families, here.llvm_cpu) == (
        *(row.features, row.families, row.llvm_cpu),
    )
    assert here.missing_on(targets.cpu_features()) == ()
    assert min(here.l1d, here.l2, here.cores) > 0
    fingerprint = targets.cpu_fingerprint()
    assert fingerprint["family"] > 0
    assert json.loads(json.dumps(fingerprint)) == fingerprint


def test_another_machine_is_refused_and_offers_nothing(monkeypatch, fresh_caches):
    monkeypatch.setattr(host.platform, "machine", lambda: "ppc64le")
    with pytest.raises(TargetError, match=r"this machine is ppc64le; .* those of x86_64, a"):
        Target.parse("native")
    assert targets.cpu_features() == frozenset()


def test_py_cpuinfo_serves_where_there_is_no_proc(monkeypatch):
    py_cpuinfo = pytest.importorskip("cpuinfo")
    info = {"vendor_id_raw": "GenuineIntel", "brand_raw": "Core", "flags": ["sse", "sse2"]}
    monkeypatch.setattr(py_cpuinfo, "get_cpu_info", lambda: info | {"family": 6, "model": 85})
    cpu = host._cpu_elsewhere()
    assert cpu == cpuinfo.Cpu("GenuineIntel", "Core", 6, 85, -1, frozenset({"sse", "sse2"}))


def test_llvm_is_told_what_its_name_of_a_cpu_does_not_imply():
    pytest.importorskip("tvm")
    row = Target.parse("avx2")
    attributes = dict(row.tvm().attrs)
    assert attributes["mtriple"] == "x86_64-linux-gnu"
    assert attributes["mcpu"] == "haswell"
    riscv = replace(row, triple="riscv64-linux-gnu", llvm_cpu="generic-rv64", mattr=("+m", "+v"))
    attributes = dict(replace(riscv, abi="lp64d").tvm().attrs)
    assert (attributes["mabi"], list(attributes["mattr"])) == ("lp64d", ["+m", "+v"])
    arm = replace(row, triple="armv7-linux-gnueabihf", llvm_cpu="cortex-a7", abi="hard")
    assert dict(arm.tvm().attrs)["mfloat-abi"] == "hard"
