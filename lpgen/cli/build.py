"""`lpgen build`: one library with a kernel for every operator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import options, output

if TYPE_CHECKING:
    from lpgen.build import Choice
    from lpgen.ops import Operator


@click.command()
@options.workloads
@options.target
@options.log("Records to build with, before those that come with lpgen [the user's log].")
@click.option(
    "--threads",
    default=1,
    show_default=True,
    help="Threads of a call, mostly: records tuned on as many come first.",
)
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="LIB.so",
    help="The library; its header LIB.h is written beside it.",
)
def command(
    workloads: tuple[str, ...],
    suite: str | None,
    bits: str | None,
    act: str | None,
    weight: str | None,
    epilogue: str | None,
    target: str,
    log_path: Path | None,
    threads: int,
    out: Path,
) -> None:
    """Export operators as one shared library and its header.

    Each is built with its best record, or with default knobs where nobody has tuned it.
    """
    from lpgen.build import build, check_output, compiler, header_path
    from lpgen.target import Target

    options.check_threads(threads)
    labels = options.operators(workloads, suite, bits, act, weight, epilogue)
    chosen = Target.parse(target)
    check_output(out)
    compiler.start()
    logs = options.logs_to_read(log_path, chosen)
    from lpgen.choose import choose

    choices = [choose(op, chosen, logs, threads=threads) for op in labels]
    path = build(choices, out)
    print_choices(choices, labels)
    size = output.file_size(path.stat().st_size)
    kernels = output.count(len(choices), "kernel")
    output.note(f"{out}: {kernels} for {chosen.name}, {size}; {header_path(out)}")


def print_choices(choices: list[Choice], labels: dict[Operator, str]) -> None:
    """Print what each operator was built with; say which are untuned and which are generic."""
    rows = [
        (
            labels[choice.op],
            choice.template,
            output.microseconds(choice.seconds)
            or ("as s32" if choice.borrowed else "default knobs"),
            output.knobs_text(choice.knobs),
        )
        for choice in choices
    ]
    output.print_table(("layer", "template", ">tuned us"), rows, wide="knobs")
    borrowed = [choice for choice in choices if choice.borrowed]
    if borrowed:
        names = ", ".join(labels[choice.op] for choice in borrowed)
        output.note(f"knobs of the same operator without its epilogue (as s32): {names}")
    untuned = [c for c in choices if c.seconds is None and not c.borrowed]
    if untuned:
        names = ", ".join(labels[choice.op] for choice in untuned)
        output.note(f"default knobs, as no log has a record (`lpgen tune` makes them): {names}")
    for choice in choices:
        if choice.template.startswith("generic/"):
            output.note(f"generic kernel: {labels[choice.op]}: {_why_generic(choice)}")


def _why_generic(choice: Choice) -> str:
    """Why no template of the CPU's own serves the operator."""
    from lpgen.templates import explain

    refusing: dict[str, list[str]] = {}
    for template, reason in explain(choice.op, choice.target).items():
        if reason is not None:
            refusing.setdefault(reason, []).append(template.name)
    reasons = [f"{', '.join(names)}: {reason}" for reason, names in refusing.items()]
    return "; ".join(reasons) or f"{choice.target.name} has no other template"
