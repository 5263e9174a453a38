import pytest

from lpgen import records, templates
from lpgen.build import Choice
from lpgen.errors import ScheduleRefused, UserError
from lpgen.ops import parse
from lpgen.records import Log, Record, RecordWarning
from lpgen.records.choose import choose, ranking
from lpgen.target import Target, known
from lpgen.templates import Template

OP = parse("dense m=4 n=32 k=64 act=u8 weight=s8")
AVX2 = Target.parse("avx2")
DOT = Template("x86", "dot")
VNNI_KNOBS = DOT.default(OP, Target.parse("zen4"))


@pytest.fixture
def log(tmp_path) -> Log:
    return Log(tmp_path / "log.jsonl")


def other_knobs() -> dict:
    """Good knobs of the template that are not its default."""
    default = DOT.default(OP, AVX2)
    return next(c.knobs for c in ranking(OP, AVX2) if c.template == DOT and c.knobs != default)


def record(log: Log, template: Template = DOT, **changes) -> Record:
    given = {"workload": OP.name, "target": "avx2", "template": template.name, "seconds": 2e-6}
    given |= {"knobs": other_knobs(), "best": True, "trials": 64}
    found = Record(**given | changes)
    log.append(found)
    return found


def test_defaults_of_the_best_family_where_nobody_has_tuned(log):
    choice = choose(OP, AVX2, [log], use_shipped=False)
    assert isinstance(choice, Choice)
    assert (choice.template, choice.seconds) == ("x86/dot", None)
    assert choice.knobs == DOT.default(OP, AVX2)
    assert choice.kernel.op == OP


def test_the_record_of_the_first_log_that_has_one(log, tmp_path):
    best = record(log)
    empty = tmp_path / "empty.jsonl"
    choice = choose(OP.name, "avx2", [empty, log.path], use_shipped=False)
    assert (choice.knobs, choice.seconds) == (best.knobs, best.seconds)


def test_a_record_of_another_template_is_followed(log):
    generic = Template("generic", "generic")
    record(log, generic, knobs=generic.default(OP, AVX2))
    assert choose(OP, AVX2, [log], use_shipped=False).template == "generic/generic"


def test_a_record_of_a_family_that_the_target_lacks_is_reported_and_skipped(log):
    amx = Template("amx", "mma")
    record(log, amx, knobs=amx.default(OP, Target.parse("sapphirerapids")))
    with pytest.warns(RecordWarning, match="it is for amx; avx2 has x86 generic"):
        choice = choose(OP, AVX2, [log], use_shipped=False)
    assert (choice.template, choice.seconds) == ("x86/dot", None)


def test_a_refused_record_is_reported_and_the_model_chooses(log, monkeypatch):
    refused = record(log)
    asked = []

    def kernel(self, op, target, knobs):
        asked.append(knobs)
        if knobs == refused.knobs:
            raise ScheduleRefused("seven registers are too few")
        return "kernel"

    monkeypatch.setattr(Template, "kernel", kernel)
    with pytest.warns(RecordWarning, match=r"x86/dot refuses .* seven registers"):
        choice = choose(OP, AVX2, [log], use_shipped=False)
    assert choice.kernel == "kernel"
    assert choice.seconds is None
    assert len(asked) == 2


def test_shipped_records_come_last(log, monkeypatch):
    calls = []
    monkeypatch.setattr(records, "best", lambda *args, **kwargs: calls.append(kwargs))
    choose(OP, AVX2, [log])
    lenders = (AVX2, *AVX2.lenders())
    assert calls == [{"threads": 1, "use_shipped": True, "lender": lender} for lender in lenders]


def test_no_template_is_an_error_with_the_reasons(monkeypatch):
    monkeypatch.setattr(templates, "explain", lambda op, target: {DOT: "too small"})
    with pytest.raises(UserError, match=r"no template applies on avx2: x86/dot: too small"):
        ranking(OP, AVX2)


def test_an_epilogue_without_a_record_borrows_the_knobs(log):
    plain = record(log)
    op = parse(f"{OP.name.removesuffix(' out=s32')} out=u8 scale=channel zero_act=3")
    choice = choose(op, AVX2, [log], use_shipped=False)
    assert (choice.knobs, choice.seconds, choice.borrowed) == (plain.knobs, None, True)
    assert choice.kernel.op == op
    own = record(log, workload=op.name, knobs=DOT.default(op, AVX2))
    choice = choose(op, AVX2, [log], use_shipped=False)
    assert (choice.knobs, choice.seconds, choice.borrowed) == (own.knobs, own.seconds, False)


def lenders(name: str) -> list[str]:
    return [row.name for row in Target.parse(name).lenders()]


def test_lenders_are_the_rows_whose_code_runs_here_nearest_first():
    assert lenders("generic") == []
    assert lenders("avx2") == ["sse4", "generic"]
    assert lenders("zen3") == ["avx2", "sse4", "generic"]
    assert lenders("zen4") == [
        *("icelake", "cooperlake", "avx512vnni"),  # of the same level
        *("avx512bw", "zen3", "avx2", "sse4", "generic"),
    ]
    for row in known().values():
        for lender in row.lenders():
            assert set(lender.features) <= set(row.features)


ZEN3 = Target.parse("zen3")


def test_a_record_of_a_lender_serves_and_is_marked(log):
    lent = record(log)
    choice = choose(OP, ZEN3, [log], use_shipped=False)
    assert (choice.template, choice.knobs) == (lent.template, lent.knobs)
    assert (choice.seconds, choice.lender, choice.origin) == (None, "avx2", "record of avx2")
    assert choice.target is ZEN3


def test_an_own_record_comes_before_a_lent_one(log):
    record(log)
    own = record(log, target="zen3", knobs=DOT.default(OP, ZEN3))
    choice = choose(OP, ZEN3, [log], use_shipped=False)
    assert (choice.knobs, choice.origin) == (own.knobs, "tuned")


def test_own_without_epilogue_then_lent_then_lent_without_epilogue(log):
    op = parse(f"{OP.name.removesuffix(' out=s32')} out=u8 scale=channel")
    record(log)
    assert choose(op, ZEN3, [log], use_shipped=False).origin == "record of avx2 as s32"
    record(log, workload=op.name)
    assert choose(op, ZEN3, [log], use_shipped=False).origin == "record of avx2"
    record(log, target="zen3")
    assert choose(op, ZEN3, [log], use_shipped=False).origin == "as s32"


def test_the_nearest_lender_serves(log):
    record(log, target="avx512bw")
    near = record(log, target="avx512vnni", knobs=VNNI_KNOBS)
    choice = choose(OP, "zen4", [log], use_shipped=False)
    assert (choice.template, choice.knobs, choice.lender) == (
        near.template,
        near.knobs,
        "avx512vnni",
    )


def test_records_of_amx_stay_its_own(log):
    """A template of AMX is no choice of a CPU without it, whoever wrote the line."""
    amx = Target.parse("sapphirerapids")
    mma = Template("amx", "mma")
    record(log, mma, target="sapphirerapids", knobs=mma.default(OP, amx))
    assert choose(OP, amx, [log], use_shipped=False).origin == "tuned"
    assert choose(OP, "zen4", [log], use_shipped=False).origin == "model"
    record(log, mma, target="zen4", knobs=mma.default(OP, amx))
    with pytest.warns(RecordWarning, match="it is for amx; zen4 has"):
        assert choose(OP, "zen4", [log], use_shipped=False).origin == "model"
