"""`lpgen show`: what a log or a library holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lpgen.cli import networks, options, output
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.records import Log, Record

_ELF = b"\x7fELF"


@click.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="LOG|LIB.so")
@click.option("--all", "everything", is_flag=True, help="Every record, not only the best.")
@click.option("--threads", type=int, help="How a library's kernels are split among so many.")
@options.as_json
def command(path: Path, everything: bool, threads: int | None, as_json: bool) -> None:
    """Show the best records of a tuning log, or what a library says it holds.

    Of a network these are its steps, with where each writes, and its memory; with --all its kernels
    too.

    With --threads: for each kernel how many tasks have work, what share of it the largest has, and
    the balance, which is the mean share over the largest.
    """
    if threads is not None:
        options.check_threads(threads)
    if _is_library(path):
        if threads is None and networks.holds_network(path):
            networks.show(path, as_json)
            if not everything:
                return
        _show_library(path, threads, as_json)
    elif threads is not None:
        raise UserError(f"{path}: --threads is for a library, and this is a log")
    else:
        _show_log(path, everything, as_json)


def _is_library(path: Path) -> bool:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: is not a regular file")
        with path.open("rb") as file:
            return file.read(4) == _ELF or path.suffix == ".so"
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _show_library(path: Path, threads: int | None, as_json: bool) -> None:
    from lpgen.build.foreign import described

    library = described(path)
    entries = library.manifest["kernels"]
    variants = [(entry, variant) for entry in entries for variant in entry["variants"]]
    if as_json:
        for entry, variant in variants:
            shared = {name: value for name, value in entry.items() if name != "variants"}
            output.print_json(shared | variant | _split(variant, threads))
        return
    if threads is None:
        rows = [(entry["workload"], *_variant_row(variant)) for entry, variant in variants]
        names = ("workload", "target", "level", "template", ">packed", ">workspace", ">tuned us")
        output.print_table(names, rows, wide="knobs")
    else:
        rows = [(entry["workload"], *_split_row(variant, threads)) for entry, variant in variants]
        names = ("workload", "template", ">tasks", ">largest", ">balance")
        output.print_table(names, rows)
    versions = f"lpgen {library.manifest['lpgen']}, TVM {library.manifest['tvm']}"
    output.note(f"{path}: {output.count(len(entries), 'workload')}, built by {versions}")
    if len(library.targets) > 1:
        output.note(f"for {', '.join(library.targets)}; {networks.in_use(library)}")
    if library.missing:
        output.note(f"this CPU lacks {', '.join(library.missing)} and runs {len(library)} of them")


def _split(variant: dict[str, Any], threads: int | None) -> dict[str, Any]:
    """What --threads adds to the JSON of a kernel."""
    from lpgen.runtime.split import split_of

    if threads is None:
        return {}
    found = split_of(variant, threads)
    return {"shares": found and {"threads": threads, **found._asdict()}}


def _split_row(variant: dict[str, Any], threads: int) -> tuple:
    from lpgen.runtime.split import split_of

    found = split_of(variant, threads)
    if found is None:
        return (variant["template"], "unknown", None, None)
    shares = output.percent(found.largest), f"{found.balance:.2f}"
    return (variant["template"], str(found.tasks), *shares)


def _variant_row(variant: dict[str, Any]) -> tuple:
    return (
        variant["target"],
        variant["level"],
        variant["template"],
        output.file_size(variant["packed_bytes"]),
        output.file_size(sum(variant["workspace_bytes"].values())),
        output.microseconds(variant["seconds"]) or variant.get("origin"),
        output.knobs_text(variant["knobs"]),
    )


def _show_log(path: Path, everything: bool, as_json: bool) -> None:
    from lpgen.records import Log

    log = Log(path)
    contents = log.read()
    for problem in contents.problems:
        output.note(f"lpgen: warning: {problem}")
    records = contents.records if everything else _best(log, contents.records)
    if as_json:
        for record in records:
            click.echo(record.to_line())
        return
    names = ("workload", "target", "template", ">us", ">threads", ">GOP/s", ">trials")
    names = (*names, "ahead of", "date")
    output.print_table(names, [_record_row(record) for record in records], wide="knobs")
    failed = sum(record.failed is not None for record in contents.records)
    total = output.count(len(contents.records), "record")
    output.note(f"{path}: {total}, {failed} of failed candidates")


def _best(log: Log, records: list[Record]) -> list[Record]:
    """The record that `lpgen build` would take from this log, for each workload, target and number
    of threads that it has."""
    from lpgen.ops import parse
    from lpgen.records import best, modelled
    from lpgen.target import Target

    named = dict.fromkeys((record.workload, record.target, record.threads) for record in records)
    found = {}
    for key in named:
        op, target = parse(key[0]), Target.parse(key[1])
        found[key] = best(op, target, [log], threads=key[2], use_shipped=False)
        if found[key] is None:  # where nobody measured
            found[key] = next(iter(modelled(op, target, [log], use_shipped=False)), None)
    # Where nothing worked on so many threads, the best is another number's.
    return [record for key, record in found.items() if record and record.threads == key[2]]


def _unmeasured(record: Record) -> str:
    if record.cycles is not None:
        loop = record.bound and f", its loop at {output.percent(record.bound)} of the bound"
        return f"modelled: {record.cycles:.4g} cycles{loop or ''}"
    return f"failed: {record.failed}"


def _record_row(record: Record) -> tuple:
    from lpgen.ops import parse

    seconds = record.seconds
    return (
        record.workload,
        record.target,
        record.template,
        output.microseconds(seconds) or _unmeasured(record),
        record.threads,
        seconds and f"{parse(record.workload).ops_timed / seconds * 1e-9:.0f}",
        record.trials,
        output.lead(record),
        record.date,
        output.knobs_text(record.knobs),
    )
