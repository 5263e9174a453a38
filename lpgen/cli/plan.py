"""`lpgen plan`: which layers of a model get how many bits, for a wish."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import options, output
from lpgen.cli import sensitivity as tables
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.planner import Compiler, Planning, Times, Wish
    from lpgen.plans import Group, LayerGroup, Plan, Precision
    from lpgen.plans.solve import Solution
    from lpgen.records import Log
    from lpgen.sensitivity import Journal

file = click.Path(path_type=Path)
CHOICES = "w8a8,w6a8,w5a8,w4a8,w3a8,w2a8,float"
LOSS_CALLS = 16
"""By so many, spread over all, layers are compared; plans are run on all."""

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def _seconds(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9.]+(?:e-?[0-9]+)?)(s|ms|us)", text)
    try:
        return float(found[1]) * _UNITS[found[2]] if found else float("nan")
    except ValueError:
        return float("nan")


@click.command()
@click.argument("model", type=file, metavar="MODEL.onnx")
@tables.data
@tables.score
@tables.metric
@click.option("--max-latency", callback=_seconds, metavar="3ms", help="Of a call on this CPU.")
@click.option("--min-metric", type=float, metavar="NUMBER", help="Of the plan, run whole.")
@click.option("--max-bytes", type=click.IntRange(1), metavar="N", help="Of all weights.")
@click.option(
    "-o", "--output", "out", required=True, type=file, metavar="PLAN.toml", help="The plan."
)
@click.option(
    "--choices",
    default=CHOICES,
    show_default=True,
    metavar="LIST",
    help='What a layer may have: "w4a8", "w4a5 row hadamard=128", "w4a8 row weight_group=64".',
)
@click.option(
    "--sensitivity", "table_path", type=file, metavar="TABLE.json", help="What was measured."
)
@options.shapes
@options.target
@options.log("Records to build with, before those that come with lpgen [the user's log].")
@options.trials("the kernels of all choices")
@click.option("--threads", default=1, show_default=True, help="Threads of a call.")
@click.option(
    "--bit-errors",
    default=0.0,
    type=float,
    metavar="RATE",
    help="Of stored weights: the plan says which layers are to be protected from them.",
)
@click.option("--picture", type=file, metavar="FILE.png", help="Draw the front (matplotlib).")
@options.as_json
def command(
    model: Path,
    data: Path,
    score: Path | None,
    metric: str,
    max_latency: float | None,
    min_metric: float | None,
    max_bytes: int | None,
    out: Path,
    choices: str,
    table_path: Path | None,
    shapes: dict[str, tuple[int, ...]],
    target: str,
    log_path: Path | None,
    trials: int,
    threads: int,
    bit_errors: float,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Choose the formats of a float model's layers, for a wish.

    What each choice costs is measured on this CPU, in networks that have it everywhere, and what it
    spoils as `lpgen sensitivity` does. An integer program chooses; its plans are run whole until
    one meets the wish. Without a wish it is the knee of the front. What was measured goes to
    PLAN.jsonl, from which the same command goes on. `lpgen quantize` and `lpgen compile` take the
    plan, which can be edited. Needs `pip install 'lpgen[quantize]'`.

    With --bit-errors the plan is run with bits of stored weights flipped at this rate, and as few
    layers as keep its metric but for 1 % get `protect = true`: `lpgen compile --weights-beside`
    writes check bytes for them.
    """
    from lpgen.cli.app import interruptible

    if max_latency is not None and not max_latency > 0:
        raise UserError("--max-latency is a positive time, such as 3ms, 800us or 0.01s")
    options.check_threads(threads)
    from lpgen.plans.plan import MOST_ERRORS

    if not 0 <= bit_errors <= MOST_ERRORS:
        raise UserError(f"--bit-errors {bit_errors:g} is outside 0..{MOST_ERRORS}")
    calibration, chosen_metric, calls = tables.read(model, data, metric, score)
    from lpgen.build import compiler as c_compiler
    from lpgen.planner import Compiler, Planning, Whole, Wish, flips_of, wanted_by
    from lpgen.plans import Precision, groups_of
    from lpgen.sensitivity import Journal, digest, read_table
    from lpgen.target import Target

    wish = Wish(**_given(min_metric=min_metric, max_seconds=max_latency, max_bytes=max_bytes))
    asked = [Precision.parse(text.strip()) for text in choices.split(",")]
    groups, native = groups_of(calibration.model), Target.parse(target)
    if not groups:
        raise UserError(f"{model} has no Conv, MatMul or Gemm with constant weights")
    log = options.log_to_write(log_path, native) if trials else None
    logs = options.logs_to_read(log_path, native)
    compiler = Compiler(calibration, native, shapes, logs, threads)
    path = out.with_suffix(".jsonl")
    with interruptible(f"interrupted; {path} has what was measured: the same command goes on"):
        c_compiler.start()
        wanted = wanted_by(asked)
        if table_path is not None:
            table = read_table(table_path)
        else:
            some = calls[:: -(-len(calls) // LOSS_CALLS)]
            table = tables.measure(calibration, wanted, chosen_metric, path, model.name, some)
        content = calibration.model.SerializeToString(deterministic=True)
        of = digest(
            *(content, calibration.calls, calls, chosen_metric.name),
            f"{native.name} {threads} {sorted(shapes.items())} {trials}",
        )
        journal = Journal(path, of)
        times = _times(compiler, groups, asked, journal, log, trials)
        whole = Whole(calibration, chosen_metric, calls)
        planning = Planning(groups, asked, times, table, whole, compiler, journal)
        solution = planning.solved(wish, output.note)
        plan = planning.made(solution, wish, model.name)
        if bit_errors:
            flips = flips_of(plan, bit_errors)
            wanted = lambda group: [flips[group.name]] if group.name in flips else []  # noqa: E731
            some = calls[:: -(-len(calls) // LOSS_CALLS)]
            errors = tables.measure(calibration, wanted, chosen_metric, path, model.name, some)
            plan = planning.protected(plan, bit_errors, errors, output.note)
    plan.write(out)
    _show(planning, solution, plan, wish, as_json)
    if picture:
        _draw(planning, solution, plan, wish, picture)


def _given(**values: float | None) -> dict[str, float]:
    """What is asked for."""
    return {name: value for name, value in values.items() if value is not None}


def _times(
    compiler: Compiler,
    groups: list[LayerGroup],
    choices: list[Precision],
    journal: Journal,
    log: Log | None,
    trials: int,
) -> Times:
    """The times of all choices, with a bar; after tuning, if that is asked for."""
    from lpgen.cli import progress
    from lpgen.cli.compile import tune_network
    from lpgen.planner import times_of, uniform_where

    if log is not None:
        for choice in choices:
            if choice.weight is not None:
                network = compiler.network(uniform_where(groups, choice, choices))
                share = max(8, trials // len(choices))
                tune_network([network], compiler.target, log, share, compiler.threads)
    with progress.steps("choices timed") as told:
        return times_of(compiler, groups, choices, journal, told)


def _show(planning: Planning, solution: Solution, plan: Plan, wish: Wish, as_json: bool) -> None:
    """The front, the plan, and what was expected beside what was measured."""
    points = {s.choice: planning.point(s) for s in planning.front(wish.max_bytes)}
    points |= {s.choice: planning.point(s) for s in (solution, *planning.uniform().values())}
    names = {s.choice: name for name, s in planning.uniform().items()}
    names[solution.choice] = f"{names.get(solution.choice, '')} <- chosen".strip()
    if as_json:
        output.print_json(
            {
                "predicted": dict(plan.predicted),
                "measured": dict(plan.measured),
                "front": [vars(points[s.choice]) for s in planning.front(wish.max_bytes)],
                "groups": {g.name: str(g.precision) for g in plan.groups},
                "protected": [g.name for g in plan.groups if g.protect],
            }
        )
        return
    ordered = sorted(points.items(), key=lambda item: item[1].seconds)
    rows = [
        (
            f"{p.seconds * 1e3:.4g}",
            f"{p.loss:.2e}",
            f"{p.metric:.4f}",
            f"{p.bits:.2f}",
            output.file_size(int(p.nbytes)),
            names.get(choice, ""),
        )
        for choice, p in ordered
    ]
    names_of = (">ms", ">loss", f">{plan.metric}", ">bits", ">bytes", "plan")
    output.print_table(names_of, rows)
    click.echo()
    output.print_table(
        ("group", ">layers", "precision"),
        [(g.name[-40:], len(g.nodes), _words(g)) for g in plan.groups],
    )
    click.echo()
    figures = [
        (name, f"{plan.predicted[name]:.4g}" if name in plan.predicted else "", f"{value:.4g}")
        for name, value in plan.measured.items()
    ]
    output.print_table(("figure", ">predicted", ">measured"), figures)


def _words(group: Group) -> str:
    return f"{group.precision}{', protected' if group.protect else ''}"


def _draw(planning: Planning, solution: Solution, plan: Plan, wish: Wish, path: Path) -> None:
    from lpgen.planner.picture import draw

    front = [planning.point(s) for s in planning.front(wish.max_bytes)]
    uniform = {name: planning.point(s) for name, s in planning.uniform().items()}
    measured = plan.measured["milliseconds"] * 1e-3, plan.measured["divergence"]
    try:
        draw(front, uniform, planning.point(solution), measured, path)
    except ImportError as error:
        raise UserError(f"{error}; pip install matplotlib") from None
