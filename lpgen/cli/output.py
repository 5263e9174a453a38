"""Printing: tables for people, aligned lines for pipes, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from lpgen.records import Record


def console(stderr: bool = False) -> Console:
    """A rich console that leaves texts as they are."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], wide: str = "") -> None:
    """Print rows under column names; a name that starts with ">" is of a column of numbers.

    `wide` names a last column of long texts: on a terminal they stand on lines of their own.
    """
    names = [name.lstrip(">") for name in columns]
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    if wide and not sys.stdout.isatty():
        columns, names, wide = [*columns, wide], [*names, wide], ""
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=False)]

    def line(row: Sequence[str]) -> str:
        places = zip(row, widths, columns, strict=False)
        texts = (t.rjust(width) if c[0] == ">" else t.ljust(width) for t, width, c in places)
        return "  ".join(texts).rstrip()

    click.secho(line(names), bold=True)
    for row in cells:
        click.echo(line(row))
        if wide:
            click.secho(f"    {row[-1]}", dim=True)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one object on one line, at once."""
    click.echo(json.dumps(value))
    sys.stdout.flush()


def note(text: str) -> None:
    """Say something beside the result, on stderr.

    Where that is full, the work goes on all the same; a reader that has gone (BrokenPipeError)
    ends it.
    """
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def knobs_text(knobs: Mapping[str, Any]) -> str:
    """Knobs in one line: rows=6 vectors=4 ..."""
    return " ".join(f"{name}={value}" for name, value in knobs.items())


def microseconds(seconds: float | None) -> str | None:
    """Seconds as microseconds to four digits."""
    if seconds is None:
        return None
    value = seconds * 1e6
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def percent(share: float | None) -> str | None:
    """A share of one as a percentage."""
    return None if share is None else f"{100 * share:.0f} %"


def lead(record: Record) -> str | None:
    """How a winner won: "1.08x avx2/dot" is the second template and how much longer it takes."""
    return record.runner_up and f"{record.lead:.2f}x {record.runner_up.template}"


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 kernel, 2 kernels."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def file_size(nbytes: int) -> str:
    """Bytes for people: "48 KiB"."""
    for unit in ("bytes", "KiB", "MiB"):
        if nbytes < 1024 or unit == "MiB":
            return f"{nbytes:.4g} {unit}" if unit == "bytes" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    raise AssertionError("unreachable")
