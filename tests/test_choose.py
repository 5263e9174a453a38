import pytest

from lpgen import records, templates
from lpgen.build import Choice
from lpgen.choose import best_template, choose
from lpgen.errors import ScheduleRefused, UserError
from lpgen.ops import parse
from lpgen.records import Log, Record, RecordWarning
from lpgen.target import Target
from lpgen.templates import Template

OP = parse("dense m=4 n=32 k=64 act=u8 weight=s8")
AVX2 = Target.parse("avx2")
DOT = Template("avx2", "dot")


@pytest.fixture
def log(tmp_path) -> Log:
    return Log(tmp_path / "log.jsonl")


def other_knobs() -> dict:
    """Knobs of the template that are not its default."""
    default = DOT.default(OP, AVX2)
    return next(knobs for knobs in DOT.space(OP, AVX2).enumerate() if knobs != default)


def record(log: Log, template: Template = DOT, **changes) -> Record:
    given = {"workload": OP.name, "target": "avx2", "template": template.name, "seconds": 2e-6}
    found = Record(**given | {"knobs": other_knobs(), "best": True} | changes)
    log.append(found)
    return found


def test_defaults_of_the_best_family_where_nobody_has_tuned(log):
    choice = choose(OP, AVX2, [log], use_shipped=False)
    assert isinstance(choice, Choice)
    assert (choice.template, choice.seconds) == ("avx2/dot", None)
    assert choice.knobs == DOT.default(OP, AVX2)
    assert choice.kernel.op == OP


def test_the_record_of_the_first_log_that_has_one(log, tmp_path):
    best = record(log)
    empty = tmp_path / "empty.jsonl"
    choice = choose(OP.name, "avx2", [empty, log.path], use_shipped=False)
    assert (choice.knobs, choice.seconds) == (best.knobs, best.seconds)


def test_a_record_of_another_template_is_followed(log):
    sse4 = Template("sse4", "dot")
    record(log, sse4, knobs=sse4.default(OP, AVX2))
    assert choose(OP, AVX2, [log], use_shipped=False).template == "sse4/dot"


def test_a_record_of_a_family_that_the_target_lacks_is_reported_and_skipped(log):
    amx = Template("amx", "mma")
    record(log, amx, knobs=amx.default(OP, Target.parse("sapphirerapids")))
    with pytest.warns(RecordWarning, match="it is for amx; avx2 has avx2 sse4 generic"):
        choice = choose(OP, AVX2, [log], use_shipped=False)
    assert (choice.template, choice.seconds) == ("avx2/dot", None)


def test_a_refused_record_is_reported_and_defaults_are_used(log, monkeypatch):
    record(log)
    asked = []

    def kernel(self, op, target, knobs):
        asked.append(knobs)
        if knobs != self.default(op, target):
            raise ScheduleRefused("seven registers are too few")
        return "kernel"

    monkeypatch.setattr(Template, "kernel", kernel)
    with pytest.warns(RecordWarning, match=r"avx2/dot refuses .* seven registers"):
        choice = choose(OP, AVX2, [log], use_shipped=False)
    assert choice.kernel == "kernel"
    assert choice.seconds is None
    assert len(asked) == 2


def test_shipped_records_come_last(log, monkeypatch):
    calls = []
    monkeypatch.setattr(records, "best", lambda *args, **kwargs: calls.append(kwargs))
    choose(OP, AVX2, [log])
    assert calls == [{"threads": 1, "use_shipped": True}]


def test_no_template_is_an_error_with_the_reasons(monkeypatch):
    monkeypatch.setattr(templates, "explain", lambda op, target: {DOT: "too small"})
    with pytest.raises(UserError, match=r"no template applies on avx2: avx2/dot: too small"):
        best_template(OP, AVX2)


def test_an_epilogue_without_a_record_borrows_the_knobs(log):
    plain = record(log)
    op = parse(f"{OP.name.removesuffix(' out=s32')} out=u8 scale=channel zero_act=3")
    choice = choose(op, AVX2, [log], use_shipped=False)
    assert (choice.knobs, choice.seconds, choice.borrowed) == (plain.knobs, None, True)
    assert choice.kernel.op == op
    own = record(log, workload=op.name, knobs=DOT.default(op, AVX2))
    choice = choose(op, AVX2, [log], use_shipped=False)
    assert (choice.knobs, choice.seconds, choice.borrowed) == (own.knobs, own.seconds, False)
