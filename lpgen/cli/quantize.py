"""`lpgen quantize`: a float model with few bits, from some data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import output
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.plans import LayerGroup, Plan
    from lpgen.quantize import Kept, Outcome

_path = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=_path, metavar="MODEL.onnx")
@click.option(
    "--data",
    required=True,
    type=_path,
    metavar="CALIB.npz",
    help="Arrays for the inputs by their names, from numpy.savez: an entry for each call.",
)
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=_path,
    metavar="OUT.onnx",
    help="The quantized model.",
)
@click.option(
    "--plan",
    "plan_path",
    type=_path,
    metavar="PLAN.toml",
    help="What each layer is quantized to.",
)
@click.option(
    "--bits",
    metavar="TEXT",
    help='One precision for all, such as "w4a8" [w8a8], "w4a8 static" or "w4a5 hadamard=128"; the '
    "first convolutions and the depthwise ones have 8 bits all the same.",
)
@click.option(
    "--method",
    default="gptq",
    show_default=True,
    metavar="NAME",
    help="How weights are rounded: gptq, or rtn, to the nearest.",
)
@click.option(
    "--damping", default=0.01, show_default=True, help="Of GPTQ's Hessians, in parts of their mean."
)
@click.option(
    "--ranges",
    default="percentile",
    show_default=True,
    metavar="NAME",
    help="How static ranges are found: percentile, mse or minmax.",
)
@click.option("--equalize", is_flag=True, help="Even out channels across layers first (CLE).")
@click.option(
    "--smooth",
    type=click.FloatRange(0, 1),
    metavar="ALPHA",
    help="Move large channels of inputs into weights first (SmoothQuant), by this power.",
)
@click.option(
    "--no-correction", is_flag=True, help="Biases do not make up for the mean error of weights."
)
@click.option(
    "--real-between",
    is_flag=True,
    help="What lies between layers with static ranges stays float: finer, and slower.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(
    model: Path,
    data: Path,
    out: Path,
    plan_path: Path | None,
    bits: str | None,
    method: str,
    damping: float,
    ranges: str,
    equalize: bool,
    smooth: float | None,
    no_correction: bool,
    real_between: bool,
    as_json: bool,
) -> None:
    """Quantize a float model of ONNX after training.

    The data run through the float model; from what its layers see come the codes of the weights and
    the static ranges of activations. OUT.onnx is standard ONNX: weights behind DequantizeLinear,
    static activations through QuantizeLinear, what is found in each call left float. It holds the
    plan, which `lpgen compile OUT.onnx` follows. For each layer it is said how much of its output
    the weights lose. Needs `pip install 'lpgen[quantize]'`.
    """
    from lpgen.cli.app import interruptible

    if plan_path is not None and bits is not None:
        raise UserError("--plan and --bits both say what layers become: one of them")
    try:
        from lpgen.onnx.model import load
    except ImportError as error:
        raise UserError(f"{error}; pip install 'lpgen[quantize]'") from None
    from lpgen.plans import groups_of
    from lpgen.quantize import Calibration, Kept, Settings, prepared, quantize, read_calls, write

    settings = Settings(method, damping, ranges, not no_correction, not real_between)
    loaded = load(model)
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}")
    plan = _plan(plan_path, bits, groups_of(loaded), model)
    calls = read_calls(data, loaded)
    message = f"interrupted; {out} was not written, and the same command goes on"
    kept = Kept(f"{out}.part", f"{settings.method} {settings.damping}")
    with interruptible(message), _discarded(kept), _progress() as show:
        ready = prepared(loaded, calls, plan, equalize, smooth)
        made = quantize(Calibration(ready, calls), plan, settings, show, kept)
        write(made.model, out)
    _show(made, plan, groups_of(loaded), as_json)


def _plan(path: Path | None, bits: str | None, groups: list[LayerGroup], model: Path) -> Plan:
    from lpgen.plans import read_plan
    from lpgen.quantize import usual

    if path is not None:
        return read_plan(path)
    return usual(groups, bits or "w8a8", model.name)


def _show(made: Outcome, plan: Plan, groups: list[LayerGroup], as_json: bool) -> None:
    """Each layer, what it became and what it loses; those that saw little."""
    sizes = {layer.node: (layer.n, layer.k) for group in groups for layer in group.layers}
    rows = []
    for node, (n, k) in sizes.items():
        precision, done = plan.precision(node), made.layers.get(node)
        lost = None if done is None else done.error**0.5
        if as_json:
            row = {"layer": node, "n": n, "k": k, "precision": str(precision), "lost": lost}
            output.print_json(row | {"rows": done and done.rows})
        seen = done and done.rows
        rows.append((node, f"{n}x{k}", precision, seen, None if lost is None else f"{lost:.2%}"))
    if as_json:
        return
    output.print_table(("layer", ">n x k", "precision", ">rows seen", ">lost"), rows)
    if few := [node for node, done in made.layers.items() if done.rows < sizes[node][1]]:
        output.note(
            f"{len(few)} layers saw fewer rows than they have places along k, such as {few[0]}: "
            "more data may serve them better"
        )


@contextlib.contextmanager
def _discarded(kept: Kept) -> Iterator[None]:
    """Layers that are done are not kept but for one who interrupts."""
    try:
        yield
    except Exception:
        kept.remove()
        raise
    kept.remove()


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    console = output.console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, of: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        tasks = {what: bar.add_task(what, total=None) for what in ("calibration", "weights")}
        yield lambda what, done, of: bar.update(tasks[what], completed=done, total=of)
