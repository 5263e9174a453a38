"""Fits the cost model to tuning logs and writes its data.

    python -m lpgen.tune.fit_cost LOG... [-o lpgen/cost/model.json] [--without WORD] [--on]

LOGs hold all candidates of tuning runs (`lpgen tune --log LOG`); the records that come with lpgen,
winners of many CPUs, are added to them. With --on the model that comes with lpgen stays as it is
and goes on learning from LOGs alone.
"""

import json
from pathlib import Path

import click

from lpgen import cost, records
from lpgen.cost.model import DATA
from lpgen.tune.fit_cost import fit, fit_on
from lpgen.tune.fit_cost.samples import samples_of


@click.command()
@click.argument("logs", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="LOG...")
@click.option("-o", "out", type=click.Path(path_type=Path), help="The data [those of lpgen].")
@click.option("--without", multiple=True, metavar="TEXT", help="Leave out workloads that hold it.")
@click.option("--on", is_flag=True, help="Add trees to lpgen's model; nothing is fitted anew.")
def main(logs: tuple[Path, ...], out: Path | None, without: tuple[str, ...], on: bool) -> None:
    """Fit the cost model to LOGs and to the records that come with lpgen."""
    opened = [records.Log(path) for path in logs]
    shipped = () if on else records.shipped()
    found = [record for log in (*opened, *shipped) for record in log.records()]
    # A winner of the LOGs is one of their candidates, timed at another moment.
    here = {id(r) for log in opened for r in log.records() if r.best}
    use = samples_of(
        found, lambda r: id(r) not in here and not any(text in r.workload for text in without)
    )
    model = fit_on(use, cost.shipped()) if on else fit(use)
    path = out or Path(cost.__file__).parent / DATA
    path.write_text(json.dumps(model.to_json(), separators=(",", ":")) + "\n", encoding="utf-8")
    click.echo(f"{path}: {json.dumps(model.made)}")


if __name__ == "__main__":
    main()
