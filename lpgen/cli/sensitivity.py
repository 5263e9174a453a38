"""`lpgen sensitivity`: what fewer bits, bit errors and noise do to a model, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import options, output
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.quantize.calibration import Calibration
    from lpgen.quantize.data import Call
    from lpgen.sensitivity import Metric, Row, Table

file = click.Path(path_type=Path)
_WIDTH = 40


def _numbers(kind: type) -> Callable:
    def read(context: click.Context, option: click.Parameter, text: str) -> tuple:
        try:
            return tuple(kind(part) for part in text.split(",")) if text else ()
        except ValueError:
            name = option.opts[0]
            raise UserError(f"{name} {text!r} is no list of numbers, such as 2,4") from None

    return read


def _amounts(name: str, default: str, kind: type, text: str) -> Callable:
    return click.option(
        f"--{name}",
        **{"default": default, "show_default": True, "callback": _numbers(kind), "help": text},
    )


data = click.option(
    "--data", required=True, type=file, metavar="FILE.npz", help="Inputs of calls, by name."
)
score = click.option(
    "--score",
    type=file,
    metavar="FILE.npz",
    help="Inputs of other calls, on which outputs are compared [those of --data].",
)
metric = click.option(
    "--metric",
    default="divergence",
    show_default=True,
    metavar="NAME",
    help="divergence, spearman, top1, or module:function of (outputs, calls); more is better.",
)


@click.command()
@click.argument("model", type=file, metavar="MODEL.onnx")
@data
@score
@metric
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=file,
    metavar="TABLE.json",
    help="The table; results one by one go to TABLE.jsonl, from which the same command goes on.",
)
@_amounts("weights", "2,3,4,5,6,8", int, "Bits of weights.")
@_amounts("acts", "4,5,6,8", int, "Bits of activations.")
@_amounts("bit-layers", "2,3,4,6,8", int, "Numbers of bit layers.")
@_amounts("flips", "1e-5,1e-4,1e-3,1e-2", float, "Rates of bit errors in stored weights.")
@_amounts("noise", "0.01,0.02,0.05,0.1", float, "Sizes of noise, in parts of the largest weight.")
@click.option(
    "--stored", default=8, show_default=True, type=click.IntRange(2, 8), help="Bits of --flips."
)
@click.option(
    "--hadamard", default=0, metavar="BLOCK", help="Few bits with a rotation of blocks, too."
)
@click.option("--picture", type=file, metavar="FILE.png", help="Draw the table (matplotlib).")
@options.as_json
def command(
    model: Path,
    data: Path,
    score: Path | None,
    metric: str,
    out: Path,
    weights: tuple[int, ...],
    acts: tuple[int, ...],
    bit_layers: tuple[int, ...],
    flips: tuple[float, ...],
    noise: tuple[float, ...],
    stored: int,
    hadamard: int,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Measure how the outputs of a float model degrade, one group of layers at a time.

    A group is the layers that share an input. Its weights are quantized to fewer bits (GPTQ on the
    data), or stored with bit errors, or noisy; or its input is quantized; all other layers stay
    float. The divergence of the outputs and the metric are the table, which `lpgen plan` takes.
    Needs `pip install 'lpgen[quantize]'`.
    """
    from lpgen.cli.app import interruptible

    _check_inside("weights", weights, 2, 8)
    _check_inside("acts", acts, 2, 8)
    _check_inside("bit-layers", bit_layers, 1, 8)
    _check_inside("flips", flips, 0, 1)
    _check_inside("noise", noise, 0, 10)
    calibration, chosen, calls = read(model, data, metric, score)
    from lpgen.sensitivity import Amounts

    amounts = Amounts(weights, bit_layers, acts, flips, noise, stored, hadamard)
    journal = out.with_suffix(".jsonl")
    with interruptible(f"interrupted; {journal} has the results: the same command goes on"):
        table = measure(calibration, amounts.of, chosen, journal, model.name, calls)
    table.write(out)
    if as_json:
        output.print_json(table.to_json())
    else:
        show(table)
    if picture:
        _draw(table, picture)


def read(
    model: Path, data: Path, metric: str, score: Path | None
) -> tuple[Calibration, Metric, list[Call]]:
    """A model with its data, the metric, and the calls on which outputs are compared."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error}; pip install 'lpgen[quantize]'") from None
    from lpgen.onnx.model import load
    from lpgen.quantize.calibration import Calibration
    from lpgen.quantize.data import read_calls
    from lpgen.sensitivity import metric_of

    chosen, loaded = metric_of(metric), load(model)
    calls = read_calls(data, loaded)
    return Calibration(loaded, calls), chosen, read_calls(score, loaded) if score else calls


def measure(
    calibration: Calibration,
    wanted: Callable,
    metric: Metric,
    journal: Path,
    name: str,
    calls: list[Call],
) -> Table:
    """The table, with a bar; what the journal has is not measured again."""
    from lpgen.cli import progress
    from lpgen.sensitivity import Journal, digest, sensitivity

    content = calibration.model.SerializeToString(deterministic=True)
    kept = Journal(journal, digest(content, calibration.calls, calls, metric.name))
    with progress.steps("variants") as told:
        return sensitivity(calibration, wanted, metric, kept, told, name, calls)


def show(table: Table) -> None:
    """The divergences, a table for each kind of variant, and the tolerated rates of bit errors."""
    from lpgen.sensitivity.table import LOSS

    for variants in _by_kind(table.variants):
        names = ("group", *(f">{variant}" for variant in variants))
        output.print_table(names, [_row(row, variants) for row in table.rows])
        click.echo()
    rates = [(row.name[-_WIDTH:], row.tolerated(table.reference)) for row in table.rows]
    if any(rate is not None for _, rate in rates):
        texts = [(name, _rate(rate, table)) for name, rate in rates]
        output.print_table(("group", ">rate of bit errors"), texts)
        click.echo(f"at these rates {table.metric} loses {LOSS:.0%}")
    output.note(
        f"divergence of the outputs on {output.count(table.calls, 'call')}; {table.metric} of the "
        f"float model: {table.reference:.4g}"
    )


def _rate(rate: float | None, table: Table) -> str:
    """A tolerated rate; "less" than the smallest one that was tried, or the largest, "or more"."""
    if rate is None:
        return "less"
    tried = (float(v.split()[0][6:]) for v in table.variants if v.startswith("flips="))
    return f"{rate:.2g}{' or more' if rate >= max(tried) else ''}"


def _by_kind(variants: list[str]) -> list[list[str]]:
    """Variants in parts: weights, activations, and what has a name."""
    found: dict[str, list[str]] = {}
    for variant in variants:
        kind = variant.partition("=")[0] if variant[1].isalpha() else variant[0]
        found.setdefault(kind, []).append(variant)
    return list(found.values())


def _row(row: Row, variants: list[str]) -> tuple[str | None, ...]:
    results = (row.results.get(variant) for variant in variants)
    return (row.name[-_WIDTH:], *(found and f"{found.divergence:.1e}" for found in results))


def _draw(table: Table, path: Path) -> None:
    from lpgen.sensitivity.picture import draw

    try:
        draw(table, path)
    except ImportError as error:
        raise UserError(f"{error}; pip install matplotlib") from None


def _check_inside(name: str, values: tuple, low: float, high: float) -> None:
    for value in values:
        if not low <= value <= high:
            raise UserError(f"--{name} {value} is outside {low}..{high}")
