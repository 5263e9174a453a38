"""`lpgen suites`: named lists of workloads."""

from __future__ import annotations

import click

from lpgen.cli import options, output, workloads


@click.command()
@click.argument("name", required=False)
@workloads.formats
@options.as_json
def command(
    name: str | None,
    formats: workloads.Formats,
    as_json: bool,
) -> None:
    """List the suites, or the workloads of suite NAME.

    A workload is printed as @FILE reads it, with the name of its layer as a comment.
    """
    from lpgen.ops.suites import layers, suites

    pairs = formats.pairs()
    if name is None:
        for suite in suites():
            found = layers(suite, *next(iter(pairs.values())))
            gops = sum(op.ops for _, op in found) * 1e-9
            if as_json:
                output.print_json({"suite": suite, "layers": len(found), "gops": round(gops, 4)})
            else:
                click.echo(f"{suite:14}{len(found):3} different layers, {gops:.3g} G operations")
        return
    for op, label in formats.layers(name).items():
        if as_json:
            output.print_json({"suite": name, "layer": label, "workload": op.name})
        else:
            click.echo(f"{op.name}  # {label}")
