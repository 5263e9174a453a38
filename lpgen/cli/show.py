"""`lpgen show`: what a log or a library holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lpgen.cli import options, output
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.records import Log, Record

_ELF = b"\x7fELF"


@click.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="LOG|LIB.so")
@click.option("--all", "everything", is_flag=True, help="Every record, not only the best ones.")
@options.as_json
def command(path: Path, everything: bool, as_json: bool) -> None:
    """Show the best records of a tuning log, or what a library says it holds."""
    if _is_library(path):
        _show_library(path, as_json)
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


def _show_library(path: Path, as_json: bool) -> None:
    from lpgen.runtime import Library

    library = Library(path)
    entries = library.manifest["kernels"]
    variants = [(entry, variant) for entry in entries for variant in entry["variants"]]
    if as_json:
        for entry, variant in variants:
            shared = {name: value for name, value in entry.items() if name != "variants"}
            output.print_json(shared | variant)
        return
    rows = [(entry["workload"], *_variant_row(variant)) for entry, variant in variants]
    names = ("workload", "target", "template", ">packed", ">workspace", ">tuned us")
    output.print_table(names, rows, wide="knobs")
    versions = f"lpgen {library.manifest['lpgen']}, TVM {library.manifest['tvm']}"
    output.note(f"{path}: {output.count(len(entries), 'workload')}, built by {versions}")
    if library.missing:
        output.note(f"this CPU lacks {', '.join(library.missing)} and runs {len(library)} of them")


def _variant_row(variant: dict[str, Any]) -> tuple:
    return (
        variant["target"],
        variant["template"],
        output.file_size(variant["packed_bytes"]),
        output.file_size(sum(variant["workspace_bytes"].values())),
        output.microseconds(variant["seconds"]),
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
    names = ("workload", "target", "template", ">us", ">GOP/s", ">trials", "ahead of", "date")
    output.print_table(names, [_record_row(record) for record in records], wide="knobs")
    failed = sum(record.failed is not None for record in contents.records)
    total = output.count(len(contents.records), "record")
    output.note(f"{path}: {total}, {failed} of failed candidates")


def _best(log: Log, records: list[Record]) -> list[Record]:
    """The record that `lpgen build` would take from this log, for each workload and target."""
    from lpgen.ops import parse
    from lpgen.records import best
    from lpgen.target import Target

    pairs = dict.fromkeys((record.workload, record.target) for record in records)
    found = (best(parse(w), Target.parse(t), [log], use_shipped=False) for w, t in pairs)
    return [record for record in found if record is not None]


def _record_row(record: Record) -> tuple:
    from lpgen.ops import parse

    seconds = record.seconds
    return (
        record.workload,
        record.target,
        record.template,
        output.microseconds(seconds) or f"failed: {record.failed}",
        seconds and f"{parse(record.workload).ops / seconds * 1e-9:.0f}",
        record.trials,
        output.lead(record),
        record.date,
        output.knobs_text(record.knobs),
    )
