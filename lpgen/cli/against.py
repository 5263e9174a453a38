"""`lpgen bench --against`: the table, the report and the picture of a comparison."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import output
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.bench.comparison import Comparison, Entry, Report
    from lpgen.bench.contest import Contest

ALL = "all"


def names_of(text: str) -> list[str]:
    """The libraries that --against names: separated by commas, or all. UserError if unknown."""
    from lpgen.bench import peers

    if text == ALL:
        return peers.known()
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError(f"--against names no library; known: {', '.join(peers.known())}")
    for name in names:
        peers.get(name)
    return list(dict.fromkeys(names))


def run(contest: Contest, library: Path, labels: Mapping[str, str], as_json: bool) -> Report:
    """Compare every kernel of `labels` (workload -> label), and say each on stderr as it is done.

    Raises UserError when none of the libraries is installed.
    """
    from lpgen.bench.comparison import Report

    with contest:
        if not contest.present:
            reasons = "; ".join(f"{name}: {why}" for name, why in contest.absent.items())
            raise UserError(f"nothing to compare with: {reasons}; pip install 'lpgen[bench]'")
        report = Report(
            contest.target.name,
            contest.threads,
            contest.present,
            contest.absent,
            contest.restraint,
        )
        for number, (workload, label) in enumerate(labels.items(), 1):
            comparison = contest.compare(library, workload)
            report.add(label, comparison)
            if as_json:
                output.print_json({"label": label, **comparison.describe()})
            else:
                output.note(f"[{number}/{len(labels)}] {label}: {_summary(comparison)}")
    return report


def check_prefix(prefix: Path) -> None:
    """Raise UserError where PREFIX.json and PREFIX.png cannot be written, before any work."""
    if not prefix.name or prefix.name == "..":
        raise UserError(f"--save {str(prefix)!r} names no file")
    try:
        for path in files(prefix):
            if path.is_dir():
                raise UserError(f"{path}: is a folder; --save names another")
        with tempfile.TemporaryDirectory(prefix=".lpgen-", dir=prefix.parent):
            pass
    except OSError as error:
        raise UserError(f"{prefix}.json: {error.strerror}; --save names another") from None


def files(prefix: Path) -> tuple[Path, Path]:
    """PREFIX.json and PREFIX.png"""
    return prefix.with_name(f"{prefix.name}.json"), prefix.with_name(f"{prefix.name}.png")


def save(report: Report, prefix: Path, title: str) -> None:
    """Write PREFIX.json and PREFIX.png. Raises UserError where that cannot be."""
    from lpgen.bench.chart import draw

    data, picture = files(prefix)
    try:
        report.write(data)
        output.note(f"{data}: the comparison")
        draw(report, picture, title)
        output.note(f"{picture}: its picture")
    except ImportError as error:
        output.note(f"no picture: {error}; pip install 'lpgen[bench]'")
    except OSError as error:
        raise UserError(
            f"{error.filename or prefix}: {error.strerror}; --save names another"
        ) from None


def print_report(report: Report) -> None:
    """The table, one row for each operator, and what has to be known to read it."""
    from lpgen.bench.comparison import timed

    peers = list(report.peers)
    names = ("operator", "template", "knobs of", ">lpgen us", *(f">{peer}" for peer in peers))
    rows = [_row(label, comparison, peers) for label, comparison in report.rows]
    output.print_table((*names, ">ratio", ">less calls", "the fastest other"), rows)
    click.echo(_means(report))
    versions = ", ".join(f"{name} {version}" for name, version in report.peers.items())
    click.echo(f"{report.cpu}, {report.date}; {versions}; {report.restraint}.")
    for name, reason in report.absent.items():
        click.echo(f"missing: {name}: {reason}")
    for reason, labels in report.refusals():
        where = labels[0] if len(labels) == 1 else output.count(len(labels), "operator")
        click.echo(f"not run: {reason} ({where})")
    for line in _different_outputs(report):
        click.echo(line)
    click.echo(f"timed: {timed(report.threads)}")


def _row(label: str, comparison: Comparison, peers: list[str]) -> tuple:
    best = comparison.best()
    return (
        label,
        comparison.template,
        comparison.origin,
        output.microseconds(comparison.ours.us_best * 1e-6),
        *(_cell(comparison.best(peer), comparison) for peer in peers),
        comparison.ratio and f"{comparison.ratio:.2f}",
        comparison.ratio_without_calls and f"{comparison.ratio_without_calls:.2f}",
        best and f"{best.peer} {best.way}",
    )


def _cell(entry: Entry | None, comparison: Comparison) -> str | None:
    """Microseconds, with what is written where that is not what lpgen writes."""
    if entry is None:
        return None
    text = output.microseconds(entry.us_best * 1e-6)
    return text if entry.out == comparison.ours.out else f"{text} {entry.out}"


def _summary(comparison: Comparison) -> str:
    best, us = comparison.best(), output.microseconds(comparison.ours.us_best * 1e-6)
    if best is None:
        return f"{us} us, and no other library runs it"
    theirs = output.microseconds(best.us_best * 1e-6)
    return f"{us} us; {best.peer} {best.way} {theirs} us: {comparison.ratio:.2f} times as fast"


def _means(report: Report) -> str:
    if report.mean is None:
        return "no operator was run by another library"
    less = report.mean_without_calls
    text = f" ({less:.2f} less calls)" if less else ""
    return (
        f"geometric mean of the time of the fastest other library over lpgen's: "
        f"{report.mean:.2f}{text}, lowest {min(report.ratios):.2f}"
    )


def _different_outputs(report: Report) -> list[str]:
    """What the texts beside the times mean, if there are any."""
    meanings = {
        "s32": "int32 sums, 4 bytes each",
        "u8": "requantized with a scale per channel, 1 byte each",
        "f32": "scaled per channel, 4 bytes each, from float activations",
    }
    shown = [(c, c.best(peer)) for _, c in report.rows for peer in report.peers]
    theirs = {entry.out for c, entry in shown if entry and entry.out != c.ours.out}
    if not theirs:
        return []
    ours = {c.ours.out for c, _ in shown}
    few = "requantized with a scale per channel to few bits"
    kinds = [f"{kind}: {meanings.get(kind, few)}" for kind in sorted(ours | theirs)]
    return [f"outputs differ: lpgen writes {', '.join(sorted(ours))}, others as marked", *kinds]
