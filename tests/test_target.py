import json
import platform
import re

import pytest

from lpgen import target as targets
from lpgen.errors import TargetError
from lpgen.target import Target, best_row, detect, known

# The vector and bit extensions that LLVM may choose by itself, beyond which a row may add none and
# below which it may leave none out. The rest that LLVM lists per CPU are tunings, or system and
# cryptographic instructions.
CHOSEN_BY_LLVM = re.compile(r"sse.*|ssse3|popcnt|avx.*|bmi2?|f16c|fma|lzcnt|movbe|gfni|amx-.*")


@pytest.mark.parametrize("name", list(known()))
def test_features_are_those_of_llvm(name):
    codegen = pytest.importorskip("tvm.target.codegen")
    row = Target.parse(name)
    listed = {str(feature) for feature in codegen.llvm_get_cpu_features(row.tvm())}
    assert set(row.features) == set(filter(CHOSEN_BY_LLVM.fullmatch, listed))


@pytest.mark.parametrize("row", known().values(), ids=str)
def test_rows_are_well_formed(row):
    assert Target.parse(row.name) is row
    assert row.families[-1] == "generic"
    assert len(set(row.families)) == len(row.families)
    assert len(set(row.features)) == len(row.features)
    assert 0 < row.l1d < row.l2 < row.l3
    assert row.cores > 0
    assert json.loads(json.dumps(row.describe()))["llvm_cpu"] == row.llvm_cpu


def test_family_chains():
    assert known()["sapphirerapids"].families == (
        *("amx", "avx512vnni", "avx512bw", "avx2", "sse4", "generic"),
    )
    assert known()["avx2"].families == known()["zen3"].families == ("avx2", "sse4", "generic")
    assert known()["zen4"].families == known()["icelake"].families
    assert known()["generic"].families == ("generic",)


@pytest.mark.parametrize("row", known().values(), ids=str)
def test_a_cpu_with_a_rows_features_gets_that_row(row):
    vendor = "AuthenticAMD" if row.name in ("zen3", "zen4") else "GenuineIntel"
    assert best_row(set(row.features), vendor) is row
    assert row.missing_on(set(row.features)) == ()


@pytest.mark.parametrize(
    ("row", "without", "falls_to"),
    [
        ("sapphirerapids", "amx-tile", "icelake"),
        ("icelake", "avx512vpopcntdq", "avx512vnni"),
        ("avx512vnni", "avx512vnni", "avx512bw"),
        ("avx512bw", "avx512vl", "avx2"),
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
    assert best_row(zen4, "GenuineIntel").name == "icelake"
    assert best_row(zen4 - {"avx512vnni"}, "AuthenticAMD").name == "avx512bw"
    assert best_row(set(), "AuthenticAMD").name == "generic"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("av512vnni", r"target 'av512vnni' is unknown; did you mean avx512vnni or .*known: native"),
        ("zen5", r"did you mean zen4 or zen3\?"),
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


def test_cpuinfo_is_read():
    cpu = targets._parse_cpuinfo(CPUINFO)
    assert (cpu["vendor"], cpu["family"], cpu["model"]) == ("AuthenticAMD", "25", "17")
    assert cpu["brand"] == "AMD EPYC 9654 96-Core Processor"
    assert cpu["flags"].split()[:2] == ["fpu", "sse"]


def test_cpuinfo_of_another_kind_gives_no_features():
    assert targets._parse_cpuinfo("garbage\n") == {"vendor": "", "brand": "", "flags": ""}


@pytest.fixture
def fresh_caches():
    kept = (targets._cpu, targets.cpu_features, targets.detect)
    for function in kept:
        function.cache_clear()
    yield
    for function in kept:
        function.cache_clear()


def test_features_in_llvm_spelling(monkeypatch, fresh_caches):
    monkeypatch.setattr(targets, "_cpu", lambda: targets._parse_cpuinfo(CPUINFO))
    expected = {"sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "lzcnt", "bmi"}
    assert targets.cpu_features() == expected | {"avx", "avx2"}


@pytest.mark.parametrize("granted", [True, False])
def test_amx_is_offered_only_when_permitted(monkeypatch, fresh_caches, granted):
    flags = "sse sse2 amx_tile amx_int8 amx_bf16"
    monkeypatch.setattr(targets, "_cpu", lambda: {"flags": flags})
    monkeypatch.setattr(targets, "amx_permitted", lambda features: granted)
    amx = {"amx-tile", "amx-int8", "amx-bf16"} if granted else set()
    assert targets.cpu_features() == {"sse", "sse2"} | amx


def test_amx_is_not_asked_for_where_the_cpu_lacks_it():
    assert not targets.amx_permitted({"avx2"})


def test_caches_are_read_and_the_rest_kept(tmp_path):
    for number, (level, kind, size) in enumerate(
        [("1", "Data", "48K"), ("1", "Instruction", "64K"), ("2", "Unified", "2M")]
    ):
        entry = tmp_path / f"index{number}"
        entry.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (entry / name).write_text(text + "\n")
    (tmp_path / "index3").mkdir()
    row = known()["avx2"]
    assert targets._caches(row, tmp_path) == {"l1d": 48 << 10, "l2": 2 << 20, "l3": row.l3}


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


def test_another_machine_is_refused(monkeypatch, fresh_caches):
    monkeypatch.setattr(targets.platform, "machine", lambda: "riscv64")
    with pytest.raises(TargetError, match="this machine is riscv64; native targets are x86-64"):
        Target.parse("native")


def test_py_cpuinfo_serves_where_there_is_no_proc(monkeypatch):
    cpuinfo = pytest.importorskip("cpuinfo")
    info = {"vendor_id_raw": "GenuineIntel", "brand_raw": "Core", "flags": ["sse", "sse2"]}
    monkeypatch.setattr(cpuinfo, "get_cpu_info", lambda: info | {"family": 6, "model": 85})
    cpu = targets._cpu_elsewhere()
    assert cpu == {
        **{"vendor": "GenuineIntel", "brand": "Core", "flags": "sse sse2"},
        **{"family": "6", "model": "85"},
    }
