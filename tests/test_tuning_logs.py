"""The logs that come with lpgen: each record is whole, fits its template and is exact."""

import json
from importlib import resources

import pytest
from kernels import assert_exact_on

from lpgen.ops import parse
from lpgen.records import Log
from lpgen.target import Target, cpu_features, known
from lpgen.templates import get

LOGS = {
    entry.name: entry
    for entry in resources.files("lpgen.tuning_logs").iterdir()
    if entry.name.endswith(".jsonl")
}
RECORDS = [
    pytest.param(name, json.loads(line), id=f"{name}:{number}")
    for name, entry in LOGS.items()
    for number, line in enumerate(entry.read_text().splitlines(), 1)
]


def _samples() -> list:
    """The smallest records that show each template at each level for each kind of operator, and
    each word that a knob of it may be; the others replay in the night."""
    found, seen = [], set()
    for record in sorted(RECORDS, key=lambda record: parse(record.values[1]["workload"]).ops):
        _, content = record.values
        template, kind = content["template"], content["workload"].split()[0]
        words = [item for item in content["knobs"].items() if isinstance(item[1], str)]
        level = Target.parse(content["target"]).level
        shown = {(level, template, kind), *((template, *word) for word in words)}
        marks = (pytest.mark.nightly,) if shown <= seen else ()
        found.append(pytest.param(*record.values, id=record.id, marks=marks))
        seen |= shown
    return found


@pytest.mark.parametrize("name", LOGS)
def test_a_log_is_whole_and_holds_records_of_its_cpu(name):
    with resources.as_file(LOGS[name]) as path:
        contents = Log(path).read()
    assert not contents.problems
    assert {f"{record.target}.jsonl" for record in contents.records} == {name}
    assert name.removesuffix(".jsonl") in known()
    workloads = [record.workload for record in contents.records]
    assert len(workloads) == len(set(workloads))


def test_every_record_is_a_point_of_its_space():
    for record in RECORDS:
        _, content = record.values
        op, target = parse(content["workload"]), Target.parse(content["target"])
        assert op.name == content["workload"]
        space = get(content["template"]).space(op, target)
        assert content["knobs"] in space, record.id


@pytest.mark.sample(2)
@pytest.mark.parametrize(("name", "record"), _samples())
def test_a_record_replays(name, record):
    target = Target.parse(record["target"])
    op, template = parse(record["workload"]), get(record["template"])
    missing = target.missing_on(cpu_features())
    if missing:
        template.kernel(op, target, record["knobs"])
        pytest.skip(f"scheduled, not run: this CPU lacks {', '.join(missing)}")
    assert_exact_on(template, target, op, record["knobs"], extremes=False)
