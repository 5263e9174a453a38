"""`lpgen build`: one library with a kernel for every operator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import options, output, workloads

if TYPE_CHECKING:
    from lpgen.build import Choice
    from lpgen.ops import Operator


@click.command()
@workloads.operators()
@options.target
@options.targets
@options.log("Records to build with, before those that come with lpgen [the user's log].")
@options.threads
@options.library
def command(
    asked: workloads.Asked,
    target: str,
    targets: str | None,
    log_path: Path | None,
    threads: int,
    out: Path,
) -> None:
    """Export operators as one shared library and its header.

    Each is built with its best record, that of a lesser CPU, or what the cost model chooses.

    With --targets sse4,avx2,icelake the library holds each of them for all those CPUs, and takes
    when it is loaded the best that runs there; LPGEN_TARGET in the environment names another one.
    """
    from lpgen.build import build, check_output, compiler, header_path

    options.check_threads(threads)
    labels = asked.operators()
    chosen = options.targets_of(target, targets)
    check_output(out)
    compiler.start()
    logs = options.logs_of(log_path, chosen)
    from lpgen.records.choose import choose

    choices = [choose(op, each, logs, threads=threads) for op in labels for each in chosen]
    path = build(choices, out)
    print_choices(choices, labels)
    size = output.file_size(path.stat().st_size)
    kernels, names = output.count(len(labels), "kernel"), ", ".join(map(str, chosen))
    output.note(f"{out}: {kernels} for {names}, {size}; {header_path(out)}")


def print_choices(choices: list[Choice], labels: dict[Operator, str]) -> None:
    """Print what each operator was built with; say which are untuned and which are generic."""
    several = len({choice.target.name for choice in choices}) > 1
    rows = [
        (
            labels[choice.op],
            *([choice.target.name] if several else []),
            choice.template,
            output.microseconds(choice.seconds) or choice.origin,
            output.knobs_text(choice.knobs),
        )
        for choice in choices
    ]
    names = ("layer", *(["target"] if several else []), "template", ">tuned us")
    output.print_table(names, rows, wide="knobs")
    named = {
        "record of the same operator without its epilogue (as s32)": [
            c for c in choices if c.borrowed and not c.lender
        ],
        "records of lesser targets": [c for c in choices if c.lender],
        "chosen by the cost model, as no log has a record (`lpgen tune` makes them)": [
            c for c in choices if c.origin == "model"
        ],
    }
    for what, chosen in named.items():
        if chosen:
            output.note(f"{what}: {_named(chosen, labels, several)}")
    for choice in choices:
        if choice.template.startswith("generic/"):
            named = _named([choice], labels, several)
            output.note(f"generic kernel: {named}: {_why_generic(choice)}")


def _named(choices: list[Choice], labels: dict[Operator, str], several: bool) -> str:
    """Labels of choices, each once; with their targets, where a library has several."""
    targets: dict[str, list[str]] = {}
    for choice in choices:
        targets.setdefault(labels[choice.op], []).append(choice.target.name)
    return ", ".join(
        f"{label} (on {', '.join(names)})" if several else label for label, names in targets.items()
    )


def _why_generic(choice: Choice) -> str:
    """Why no template of the CPU's own serves the operator."""
    from lpgen.templates import explain

    refusing: dict[str, list[str]] = {}
    for template, reason in explain(choice.op, choice.target).items():
        # What computes other kinds of operators, or in plain loops too, is no reason.
        near = choice.op.kind in template.serves and template.family != "generic"
        if reason is not None and near:
            refusing.setdefault(reason, []).append(template.name)
    reasons = [f"{', '.join(names)}: {reason}" for reason, names in refusing.items()]
    return "; ".join(reasons) or f"{choice.target.name} has no other template"
