"""lpgen fit-cost: the cost model, fitted to tuning logs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lpgen.errors import UserError


@click.command("fit-cost", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("logs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="LOG...")
@click.option(
    "-o",
    "out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The data of the model [those of lpgen].",
)
@click.option(
    "--without",
    multiple=True,
    metavar="TEXT",
    help="Leave out workloads that hold it, or those of @FILE.",
)
@click.option("--on", is_flag=True, help="Add trees to lpgen's model; nothing is fitted anew.")
@click.option("--own", metavar="TARGET", help="Prices and trees of its own for a target.")
def command(
    logs: tuple[Path, ...], out: Path | None, without: tuple[str, ...], on: bool, own: str | None
) -> None:
    """Fit the cost model, which chooses kernels where nobody has tuned.

    LOGs hold all candidates of tuning runs (`lpgen tune --log LOG`); the records that come with
    lpgen, winners of many CPUs, are added to them. With --on the model that comes with lpgen stays
    as it is and goes on learning from LOGs alone; with --own the TARGET gets prices and trees of
    its own from its candidates, which are those of one CPU, and nothing changes for others.

    LPGEN_COST_MODEL=FILE lets any command of lpgen choose by another model: one that has not seen
    the operators of a file, say (--without @FILE).
    """
    from lpgen import cost, records
    from lpgen.cost.model import DATA
    from lpgen.target import Target
    from lpgen.tune.fit_cost import fit, fit_on, fit_own
    from lpgen.tune.fit_cost.samples import samples_of

    if on and own:
        raise UserError("--on adds to what all targets share, --own to a target: one of them")
    target = own and Target.parse(own).name
    for path in logs:
        if not path.exists():
            raise UserError(f"log {path}: there is no such file")
    path = out or Path(cost.__file__).parent / DATA
    if not path.parent.is_dir():
        raise UserError(f"-o {path}: there is no folder {path.parent}")
    opened = [records.Log(path) for path in logs]
    shipped = () if on or own else records.shipped()
    found = [record for log in (*opened, *shipped) for record in log.records()]
    # A winner of the LOGs is one of their candidates, timed at another moment.
    here = {id(r) for log in opened for r in log.records() if r.best}
    named, texts = _left_out(without)
    use = samples_of(
        found,
        lambda r: (
            id(r) not in here
            and r.workload not in named
            and not any(text in r.workload for text in texts)
        ),
    )
    if not use:
        raise UserError(f"{', '.join(map(str, logs))}: no candidate to learn from is left")
    if target and all(sample.target.name != target for sample in use):
        raise UserError(f"{', '.join(map(str, logs))}: no candidate of {target}")
    if target:
        model = fit_own(use, cost.shipped(), target)
    else:
        model = fit_on(use, cost.shipped()) if on else fit(use)
    path.write_text(json.dumps(model.to_json(), separators=(",", ":")) + "\n", encoding="utf-8")
    click.echo(f"{path}: {json.dumps(model.made)}")


def _left_out(without: tuple[str, ...]) -> tuple[set[str], list[str]]:
    """The workloads that files name, and texts that others hold."""
    from lpgen.ops import read_workloads

    files = [text for text in without if text.startswith("@")]
    named = {op.name for op in read_workloads(files)}
    return named, [text for text in without if text not in files]
