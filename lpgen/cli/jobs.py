"""`lpgen bench --config`: a job file measured, on this machine and on devices."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lpgen.cli import output, remote, workloads
from lpgen.cli.measurements import build_for
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.bench.jobs import Jobs, Results
    from lpgen.farm.libraries import RemoteLibrary
    from lpgen.ops import Operator

Job = dict[str, Any]
"""What tells a measurement from others: target, threads, workload or network, and with what."""


class _Group(NamedTuple):
    """Jobs of one target and number of threads: key of the device, None: here; jobs by operator, or
    by the path of a network's library."""

    target: str
    threads: int
    key: str | None
    operators: dict[Operator, Job]
    networks: dict[Path, Job]

    def left(self, results: Results) -> _Group:
        """Without what is done."""
        ops = {op: job for op, job in self.operators.items() if job not in results}
        nets = {path: job for path, job in self.networks.items() if job not in results}
        return self._replace(operators=ops, networks=nets)


def run(path: Path, prefix: Path | None, log_path: Path | None, as_json: bool) -> None:
    """Measure what is left of the jobs, one result after the other, then show all of them."""
    from lpgen.bench.jobs import Results, read_jobs
    from lpgen.cli.app import interruptible

    jobs = read_jobs(path)
    prefix = prefix or path.with_suffix("")
    labels = _operators(jobs)
    groups = list(_groups(jobs, labels))
    _check(jobs)
    results = Results(prefix.with_name(f"{prefix.name}.jsonl"))
    every = [j for group in groups for j in (*group.operators.values(), *group.networks.values())]
    message = f"interrupted; what was measured is in {results.path}: the same command goes on"
    with interruptible(message):
        for group in groups:
            for job, result in _measured(jobs, group.left(results), log_path):
                results.add(job, result | {"date": datetime.date.today().isoformat()})
                output.note(f"[{len(list(results.of(every)))}/{len(every)}] {_words(job, labels)}")
    found = [entry | {"label": _label(entry["job"], labels)} for entry in results.of(every)]
    _show(found, prefix, as_json)


def _operators(jobs: Jobs) -> dict[str, tuple[Operator, str]]:
    """The operators by name, with their labels."""
    formats = workloads.Formats(jobs.bits, jobs.act, jobs.weight, jobs.epilogue)
    none = workloads.Formats(None, None, None, None)
    if formats.given and not jobs.suites:
        raise UserError("bits, act, weight and epilogue are for suites")
    found = {}
    if jobs.workloads:
        found |= workloads.Asked(jobs.workloads, None, none).operators()
    for suite in jobs.suites:
        layers = workloads.Asked((), suite, formats).operators()
        found |= {op: f"{suite} {label}" for op, label in layers.items()}
    if ranged := next((op for op in found if op.range), None):
        raise UserError(f"{ranged.name}: a job has one size, no range of rows")
    return {op.name: (op, label) for op, label in found.items()}


def _groups(jobs: Jobs, labels: dict[str, tuple[Operator, str]]) -> Iterator[_Group]:
    compared = {"peers": sorted(jobs.peers), "rounds": jobs.rounds} if jobs.peers else {}
    for target in jobs.targets:
        for threads in jobs.threads:
            key = jobs.key_of(target)
            on = {"target": target, "key": key, "threads": threads}
            ops = {op: on | compared | {"workload": name} for name, (op, _) in labels.items()}
            nets = {Path(name): on | {"network": name} for name in jobs.networks}
            yield _Group(target, threads, key, ops, nets)


def _check(jobs: Jobs) -> None:
    """Raise UserError, before anything is built, for what cannot be measured."""
    from lpgen.cli.against import names_of

    if jobs.peers:
        names_of(",".join(jobs.peers))
    for name in jobs.networks:
        if not Path(name).is_file():
            raise UserError(f"{name}: no such library")
    if jobs.rpc:
        from lpgen.farm.trackers import Address, devices_of

        for key in filter(None, map(jobs.key_of, jobs.targets)):
            devices_of(Address.parse(jobs.rpc), key)


def _measured(
    jobs: Jobs, group: _Group, log_path: Path | None
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Each job of a group with its result, as soon as there is one."""
    from lpgen.build.scratch import scratch_folder

    if not group.operators and not group.networks:
        return
    with contextlib.ExitStack() as stack:
        folder, target = stack.enter_context(scratch_folder()), group.target
        lease = None
        if group.key is not None:
            from lpgen.farm.libraries import target_of

            lease = stack.enter_context(remote.leases(jobs.rpc, group.key)())
            target = target_of(lease) if target == "native" else target
        on = remote.named(lease) if lease else _here()
        library = folder / "jobs.so"
        if group.operators:
            build_for(group.operators, target, log_path, group.threads, library)
        if lease is None:
            found = _measured_here(jobs, group, library)
        else:
            from lpgen.farm.libraries import RemoteLibrary

            found = _measured_there(group, lambda path: RemoteLibrary(lease, path, None), library)
        for job, result in found:
            yield job, result | on


def _here() -> dict[str, str]:
    from lpgen.target import cpu_fingerprint

    return {"device": "here", "cpu": cpu_fingerprint()["brand"]}


def _measured_here(
    jobs: Jobs, group: _Group, library: Path
) -> Iterator[tuple[Job, dict[str, Any]]]:
    from lpgen import runtime
    from lpgen.bench.contest import Contest
    from lpgen.bench.measure import bench_kernel
    from lpgen.bench.network import bench_network
    from lpgen.target import Target

    with contextlib.ExitStack() as stack:
        contest = None
        if jobs.peers and group.operators:
            settings = {"threads": group.threads, "rounds": jobs.rounds}
            asked = Contest(jobs.peers, Target.parse(group.target), **settings)
            contest = stack.enter_context(asked)
        for op, job in group.operators.items():
            if contest is not None:
                yield job, {"comparison": contest.compare(library, op.name).describe()}
                continue
            found = bench_kernel(runtime.load(library), op.name, op, group.threads)
            yield job, {"measurements": [m.describe() for m in found]}
    for path, job in group.networks.items():
        yield job, {"network": bench_network(path, threads=group.threads).describe()}


def _measured_there(
    group: _Group, opened: Any, library: Path
) -> Iterator[tuple[Job, dict[str, Any]]]:
    from lpgen.farm.libraries import bench_kernel, bench_network

    if group.operators:
        there: RemoteLibrary = opened(library)
        for op, job in group.operators.items():
            found = bench_kernel(there, op.name, op, group.threads)
            yield job, {"measurements": [m.describe() for m in found]}
    for path, job in group.networks.items():
        found = bench_network(opened(path), group.threads, {})
        yield job, {"network": found.describe()}


def _label(job: Job, labels: dict[str, tuple[Operator, str]]) -> str:
    return job["network"] if "network" in job else labels[job["workload"]][1]


def _words(job: Job, labels: dict[str, tuple[Operator, str]]) -> str:
    threads = output.count(job["threads"], "thread")
    return f"{job['target']}, {threads}: {_label(job, labels)}"


def _show(found: list[dict[str, Any]], prefix: Path, as_json: bool) -> None:
    """All results as a table, as PREFIX.json, and as a picture for each target."""
    from lpgen.bench.chart import draw_times

    rows = [row for entry in found for row in _rows(entry)]
    if as_json:
        for entry in found:
            output.print_json(entry)
    else:
        names = ("target", "device", ">threads", "what", "by", ">us best", ">median", ">GOP/s")
        cells = [tuple(row.values()) for row in rows]
        output.print_table((*names,), cells)
    data = prefix.with_name(f"{prefix.name}.json")
    data.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    output.note(f"{data}: all results")
    for target in dict.fromkeys(row["target"] for row in rows):
        path = prefix.with_name(f"{prefix.name}.{target}.png")
        own = [row for row in rows if row["target"] == target]
        cpus = {entry["cpu"] for entry in found if entry["job"]["target"] == target}
        try:
            draw_times(own, path, f"{target}: {', '.join(sorted(cpus))}")
        except ImportError as error:
            output.note(f"no picture: {error}; pip install 'lpgen[bench]'")
            return
        output.note(f"{path}: a picture of those for {target}")


def _rows(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The times of a result; by: whose kernel."""
    job, device = entry["job"], entry["device"]
    head = {"target": job["target"], "device": device, "threads": job["threads"]}
    head["what"] = entry["label"]

    def row(by: str, us: float, median: float, gops: float | None = None, more: str = ""):
        texts = f"{us:.4g}", f"{median:.4g}", gops and f"{gops:.0f}"
        own = head | {"what": head["what"] + more, "by": by}
        return own | dict(zip(("us_best", "us_median", "gops"), texts, strict=True))

    for m in entry.get("measurements", ()):
        more = f", {m['layers']} used" if m["layers"] else ""
        yield row(m["template"], m["us_best"], m["us_median"], m["gops"], more)
    if network := entry.get("network"):
        yield row("network", network["us_best"], network["us_median"])
    if comparison := entry.get("comparison"):
        for each in (comparison["ours"], *comparison["entries"]):
            ours = each is comparison["ours"]
            by = comparison["template"] if ours else f"{each['peer']} {each['way']}"
            yield row(by, each["us_best"], each["us_median"])
