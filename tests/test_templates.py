import warnings

import pytest
from kernels import rows_that_differ

from lpgen import records, templates
from lpgen.errors import UserError
from lpgen.ops import parse
from lpgen.target import Target, known
from lpgen.templates import Template

DENSE = parse("dense m=16 n=32 k=64 act=u8 weight=s8")
DEPTHWISE = parse("conv2d h=8 w=8 ic=16 oc=16 kernel=3x3 pad=1 groups=16 act=u8 weight=s8")
OPERATORS = (
    DENSE,
    DEPTHWISE,
    parse("dense m=1 n=10 k=1000 act=s8 weight=s8"),
    parse("dense m=7 n=33 k=65 act=u1 weight=b1"),
    parse("conv2d h=7 w=9 ic=3 oc=5 kernel=3x2 stride=2 pad=0x1x0x1 act=u4 weight=t2"),
    parse("conv2d h=14 w=14 ic=64 oc=64 kernel=3x3 pad=1 groups=4 act=s5 weight=b3"),
)


def test_templates_are_found_by_path():
    names = templates.known()
    assert {"generic/generic", "generic/elementwise", "x86/dot", "amx/mma"} <= set(names)
    parts = {"blocks", "cuts", "isa", "intrinsics", "narrow", "peak", "tiles", "pipeline", "knobs"}
    assert not parts & {name.partition("/")[2] for name in names}


@pytest.mark.parametrize("name", templates.known())
def test_every_template_is_complete(name):
    template = templates.get(name)
    assert template.name == name == str(template)
    for function in ("why_not", "space", "kernel"):
        assert callable(getattr(template.module, function))
    assert hasattr(template.module, "default") != template.counted
    assert any(template.family in target.families for target in known().values())


@pytest.mark.parametrize("target", known().values(), ids=known())
def test_each_algorithm_is_served_once_by_its_best_family(target):
    for op in OPERATORS:
        serving = templates.templates_for(op, target)
        algorithms = [template.algorithm for template in serving]
        assert len(set(algorithms)) == len(algorithms)
        assert "generic" in algorithms
        order = [target.families.index(template.family) for template in serving]
        assert order == sorted(order)
        for template in templates.templates_of(target):
            better = [s for s in serving if s.algorithm == template.algorithm]
            if template.why_not(op, target) is None:
                assert better
                best = target.families.index(better[0].family)
                assert best <= target.families.index(template.family)


@pytest.mark.sample(2)
@pytest.mark.parametrize("target", rows_that_differ().values(), ids=rows_that_differ())
def test_defaults_are_points_of_their_spaces(target):
    for op in OPERATORS:
        for template in templates.templates_for(op, target):
            assert template.default(op, target) in template.space(op, target), (op, template)


@pytest.mark.parametrize("name", templates.known())
def test_a_template_of_another_family_does_not_apply(name):
    template = templates.get(name)
    others = [row for row in known().values() if template.family not in row.families]
    for target in others:
        reason = template.why_not(DENSE, target)
        assert reason.startswith(f"it is for {template.family}; {target.name} has "), target
    assert bool(others) == (template.family != "generic")


def test_reasons_are_given():
    target = Target.parse("avx512vnni")
    reasons = {t.name: reason for t, reason in templates.explain(DENSE, target).items()}
    assert reasons["x86/bitserial"] is reasons["x86/dot"] is None
    assert reasons["generic/bitserial"] == "x86/bitserial serves instead"
    reasons = {t.name: reason for t, reason in templates.explain(DEPTHWISE, target).items()}
    assert "depthwise" in reasons["x86/dot"]
    assert reasons["generic/generic"] is None


@pytest.mark.parametrize(
    "name",
    ["avx2/nothing", "x86/blocks", "common/dot", "z80/dot", "dot", "amx/tiles", "../x/y", "", None],
)
def test_an_unknown_template_is_named_and_the_known_are_listed(name):
    with pytest.raises(UserError, match=r"template: .* is not known; known: .*x86/dot"):
        templates.get(name)


def test_a_family_without_a_folder_has_no_algorithms():
    assert templates.algorithms_of("nothing") == ()
    assert templates.algorithms_of("__init__") == ()


def test_a_broken_template_is_not_mistaken_for_a_missing_one(monkeypatch, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "__init__.py").write_text("import a_module_that_is_missing\n")
    monkeypatch.setattr("lpgen.schedules.__path__", [str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_missing"):
        templates.algorithms_of("broken")


def test_templates_are_equal_by_name():
    assert Template("x86", "dot") == templates.get("x86/dot")
    assert len({Template("x86", "dot"), templates.get("x86/dot")}) == 1


def test_a_level_is_what_the_target_has_of_a_family():
    dot, mma = templates.get("x86/dot"), templates.get("amx/mma")
    levels = {name: dot.level(row) for name, row in known().items() if "x86" in row.families}
    assert levels["sse4"] == "sse4"
    assert levels["avx2"] == levels["zen3"] == "avx2"
    assert levels["avx512bw"] == "avx512bw"
    assert levels["zen4"] == levels["sapphirerapids"] == "avx512vnni"
    assert mma.level(Target.parse("sapphirerapids")) == "amx"


@pytest.mark.parametrize(
    ("earlier", "now"),
    [
        ("avx2/dot", "x86/dot"),
        ("avx512vnni/group_dot", "x86/blockwise_dot"),
        ("sse4/grouped", "x86/grouped_conv"),
        ("generic/group_dot", "generic/blockwise_dot"),
        ("amx/mma", "amx/mma"),
    ],
)
def test_names_of_earlier_versions_are_understood(earlier, now):
    assert templates.get(earlier).name == templates.current_name(earlier) == now


@pytest.mark.parametrize(
    ("earlier", "target", "now"),
    [
        ("avx2/dot", "zen3", "x86/dot"),
        ("avx512vnni/dot", "sapphirerapids", "x86/dot"),
        # Without any gain from VNNI they were those of AVX-512BW on every CPU with it.
        ("avx512bw/bitserial", "sapphirerapids", "x86/bitserial"),
        ("avx512bw/lut_weight", "avx512vnni", "x86/lut_weight"),
        ("avx512bw/lut_sum", "avx512bw", "x86/lut_sum"),
        # The level is the target's today: that of another one is gone.
        ("avx2/dot", "avx512bw", "avx2/dot"),
        ("sse4/depthwise", "zen4", "sse4/depthwise"),
        ("avx512vnni/bitserial", "zen4", "avx512vnni/bitserial"),
        ("avx2/group_dot", "generic", "avx2/group_dot"),
    ],
)
def test_a_level_that_would_not_be_compiled_for_is_not_taken_for_another(earlier, target, now):
    assert templates.current_name(earlier, Target.parse(target)) == now


def test_shipped_records_fit_their_templates():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for log in records.shipped():
            for record in log.records():
                op, target = parse(record.workload), Target.parse(record.target)
                assert records.why_not(record, op, target) is None
