"""`lpgen export-schedule`: the scheduled TIR of a kernel and the assembly of its hot loops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import options, output
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.build import Choice
    from lpgen.ops import Operator
    from lpgen.records import Log
    from lpgen.target import Target


@click.command("export-schedule")
@click.argument("workloads", nargs=-1, required=True, metavar="WORKLOAD | @FILE...")
@options.target
@options.log("Records to choose from, before those that come with lpgen [the user's log].")
@click.option("--template", metavar="NAME", help="This template with its default knobs.")
@click.option("--tir/--no-tir", default=True, help="With or without the TIR.")
@click.option("--asm/--no-asm", default=True, help="With or without the assembly.")
def command(
    workloads: tuple[str, ...],
    target: str,
    log_path: Path | None,
    template: str | None,
    tir: bool,
    asm: bool,
) -> None:
    """Print how operators are computed: the scheduled TIR, then the assembly of the hot loops."""
    from lpgen.ops import read_workloads
    from lpgen.target import Target

    ops, chosen = read_workloads(workloads), Target.parse(target)
    logs = options.logs_to_read(log_path, chosen)
    for op in ops:
        choice = _choice(op, chosen, logs, template)
        _print_title(choice)
        if tir:
            click.echo(f"\n{choice.kernel.module.script()}")
        if asm:
            _print_assembly(choice)


def _print_title(choice: Choice) -> None:
    tuned = output.microseconds(choice.seconds)
    origin = f"tuned, {tuned} us" if tuned else choice.origin
    click.echo(f"# {choice.op.name}")
    click.echo(f"# {choice.template} for {choice.target.name}, {origin}:")
    click.echo(f"# {output.knobs_text(choice.knobs)}")


def _choice(op: Operator, target: Target, logs: list[Log], template: str | None) -> Choice:
    from lpgen import templates
    from lpgen.records.choose import choice_of, choose

    if template is None:
        return choose(op, target, logs)
    chosen = templates.get(template)
    if reason := chosen.why_not(op, target):
        raise UserError(f"template {chosen} does not serve {op.name}: {reason}")
    return choice_of(op, target, chosen, chosen.default(op, target))


def _print_assembly(choice: Choice) -> None:
    from lpgen.build.assembly import hot_loops
    from lpgen.build.compiler import compile_apart

    what = f"{choice.op.name}: {choice.template} for {choice.target.name}"
    compiled = compile_apart(what, {"kernel": choice.kernel.function}, choice.target)
    for loop in hot_loops(compiled.assembly):
        what = f"{loop.key_instructions} multiplications or look-ups in {len(loop.lines)} lines"
        click.echo(f"\n# hot loop of {loop.function}: {what}")
        click.echo("\n".join(loop.lines))
