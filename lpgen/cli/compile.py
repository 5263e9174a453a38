"""`lpgen compile`: a model as one library that runs all of it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import networks, options, output
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.farm import Farm
    from lpgen.network import Network
    from lpgen.onnx.lowering import Quantizing
    from lpgen.records import Log
    from lpgen.target import Target
    from lpgen.tune import TuneResult

model = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=model, metavar="MODEL.onnx")
@options.library
@options.versions
@options.target
@options.targets
@options.log("Records to build with, before those that come with lpgen [the user's log].")
@options.trials("all kernels; their records go to the log")
@options.devices
@options.threads
@click.option("--name", metavar="NAME", help="What its C functions begin with [LIB].")
@click.option(
    "--weights-beside",
    is_flag=True,
    help="Weights go to a file of their own, LIB.weights, that is mapped when it is used.",
)
@click.option(
    "--ort",
    "left",
    type=click.Path(path_type=Path),
    metavar="LEFT.onnx",
    help="What lpgen does not serve stays in this model, for onnxruntime with LIB.so.",
)
@options.dynamic
@options.plan
@click.option(
    "--faster",
    multiple=True,
    type=model,
    metavar="OTHER.onnx",
    help="The same model by a faster plan, into the same library; several, one after the other.",
)
@click.option(
    "--ask-layers",
    is_flag=True,
    help="How many bit layers a call uses is an input, `layers`, and not what the plan says.",
)
@options.as_json
def command(
    model: Path,
    out: Path,
    versions: list[dict[str, tuple[int, ...]]],
    target: str,
    targets: str | None,
    log_path: Path | None,
    trials: int,
    rpc: str | None,
    key: str | None,
    devices: int | None,
    threads: int,
    name: str | None,
    weights_beside: bool,
    left: Path | None,
    dynamic: str,
    plan: Path | None,
    faster: tuple[Path, ...],
    ask_layers: bool,
    as_json: bool,
) -> None:
    """Compile a network: an ONNX file becomes one library and its header.

    It holds a kernel for each distinct operator, chosen as `lpgen build` does, the weights, packed,
    and the plan of the memory. It is called as LIB_run in C and as `load("LIB.so").network` in
    Python. With --trials its kernels are tuned before, on this CPU, or with --rpc and --key on
    devices: those that take most of the time get most of the trials, and the same command goes on
    with what is in the log. What of the model is not served is said before anything is compiled.

    With several sizes of an input, --shape ids=1x16,1x32,8x32, it has a version of the network for
    each, with a plan of its own; equal kernels and weights are there once. In Python the shapes of
    the inputs say which one is called, in C these are LIB_run, LIB_1_run, LIB_2_run.

    With --targets sse4,avx2,icelake it holds the kernels and the packed weights for all those CPUs,
    and takes when it is loaded the best that runs there; with --weights-beside the weights for each
    are a file of their own, LIB.TARGET.weights, and only those in use have to be there.

    Weights that a plan stores as bit layers become so here; a call uses as many as the plan says,
    or, with --ask-layers, as many as its input `layers` says.

    With --faster a library holds several plans of one model, named as their files are, the best
    one first: `lpgen bench LIB.so --variants` times them, and `load("LIB.so").variants()` gives
    the best one that is fast enough.

    With --ort a model that is not served as a whole becomes as few networks as can be, and
    LEFT.onnx has a node for each of them beside what stays. Give LIB.so to a session of
    onnxruntime: SessionOptions.register_custom_ops_library("LIB.so").
    """
    from lpgen.build import check_output, compiler
    from lpgen.cli.app import interruptible
    from lpgen.network import build, build_plans, default_name

    options.check_threads(threads)
    if rpc and not trials:
        raise UserError("--rpc is for --trials: devices measure, and compile nothing")
    farm = options.farm(rpc, key, devices)
    if ask_layers and (left is not None or dynamic):
        raise UserError("--ask-layers goes with neither --ort nor --dynamic")
    if faster and (left is not None or weights_beside):
        raise UserError("--faster goes with neither --ort nor --weights-beside")
    plans = _plan_names((model, *faster))
    if left is not None and (trials or weights_beside):
        raise UserError("--ort goes with neither --trials nor --weights-beside")
    if left is not None and len(versions) > 1:
        raise UserError("--ort takes one size of each input")
    chosen = options.targets_of(target, targets)
    if len(chosen) > 1 and trials:
        raise UserError("--trials is for one --target; `lpgen tune` makes records for others")
    check_output(out)
    default_name(out, name)
    log = options.log_to_write(log_path, chosen[0]) if trials else None
    logs = options.logs_of(log_path, chosen)
    with interruptible(f"interrupted; {out} was not written"):
        compiler.start()
        if left is not None:
            how = quantizing(model, dynamic, plan)
            _compile_nodes(model, out, left, versions[0], how, chosen, logs, threads, as_json)
            return
        how = (dynamic, plan, ask_layers)
        found = {n: [read(path, size, *how) for size in versions] for n, path in plans.items()}
        if log:
            with farm as opened:
                every = [network for of_plan in found.values() for network in of_plan]
                tune_network(every, chosen[0], log, trials, threads, opened)
        with _progress() as show:
            settings = {"name": name, "threads": threads, "on_progress": show}
            if faster:
                build_plans(found, chosen, out, logs, **settings)
            else:
                (network,) = found.values()
                bare = exposed(model, plan) if weights_beside else None
                beside = {"weights_beside": weights_beside, "exposed": bare}
                build(network, chosen, out, logs, **beside, **settings)
    networks.show(out, as_json)


def _plan_names(models: Sequence[Path]) -> dict[str, Path]:
    """The files by the names of their plans. Raises UserError where two would be the same."""
    from lpgen.build.choice import identifier

    found: dict[str, Path] = {}
    for path in models:
        name = identifier(path.stem)
        if name in found:
            raise UserError(f"{path} and {found[name]} would both be plan {name}")
        found[name] = path
    return found


def _compile_nodes(
    model: Path,
    out: Path,
    left: Path,
    shapes: dict[str, tuple[int, ...]],
    dynamic: Quantizing,
    targets: list[Target],
    logs: list[Log],
    threads: int,
    as_json: bool,
) -> None:
    """The networks of a model as nodes of onnxruntime, and the model with them."""
    from lpgen.network import build_nodes, default_name
    from lpgen.onnx.partition import partition, write_model

    parts = partition(model, default_name(out), shapes, dynamic)
    with _progress() as show:
        build_nodes(parts.networks, targets, out, logs, threads=threads, on_progress=show)
    write_model(parts, left, threads)
    networks.show_parts(parts, out, left, as_json)


def tune_network(
    networks: Sequence[Network],
    target: Target,
    log: Log,
    trials: int,
    threads: int,
    farm: Farm | None = None,
) -> None:
    """Tune the kernels of a network, or of its versions, that cost most, on a farm or here, and say
    what the whole may gain."""
    from lpgen.cli import tuning
    from lpgen.network.rounding import rounded_for
    from lpgen.network.trials import costs, shares
    from lpgen.tune import most_jobs

    networks = [rounded_for(network, [target]) for network in networks]
    uses = Counter(step.op for network in networks for step in network.steps)
    expected = costs(uses, target)
    found = shares(expected, trials)
    labels = {op: op.label for op in found}
    settings = {"trials": found, "threads": threads, "jobs": most_jobs(threads), "farm": farm}
    before = sum(expected.values())

    def take(result: TuneResult) -> None:
        expected[result.op] = uses[result.op] * result.best.seconds
        output.note(f"all steps, as expected: {output.microseconds(sum(expected.values()))} us")

    tuning.run(labels, target, log, settings, take)
    before, after = (output.microseconds(us) for us in (before, sum(expected.values())))
    output.note(
        f"the steps were expected to take {before} us, and now {after}; records: {log.path}"
    )


def read(
    model: Path,
    shapes: dict[str, tuple[int, ...]],
    dynamic: str = "",
    plan: Path | None = None,
    ask_layers: bool = False,
) -> Network:
    """The network of an ONNX file, as `lpgen.onnx.read_network` gives it; plan: what says how
    activations are quantized, else --dynamic does, else the plan that the model holds."""
    how = quantizing(model, dynamic, plan, ask_layers)
    from lpgen.onnx import read_network

    return read_network(model, shapes, how)


def exposed(model: Path, plan: Path | None) -> list[str] | None:
    """The nodes whose codes of weights may have bit errors, None where a plan expects none."""
    from lpgen.onnx.model import load
    from lpgen.plans import plan_of, read_plan

    found = read_plan(plan) if plan is not None else plan_of(load(model))
    return found.exposed if found is not None and found.bit_errors else None


def quantizing(
    model: Path, dynamic: str, plan: Path | None, ask_layers: bool = False
) -> Quantizing:
    """How activations are quantized; ask_layers: the number of bit layers is an input."""
    try:
        from lpgen.onnx.model import load
    except ImportError as error:
        raise UserError(f"{error}; pip install 'lpgen[onnx]'") from None
    from lpgen.plans import activations_of, plan_of, read_plan
    from lpgen.quantize.layers import for_kernels

    if plan is not None and dynamic:
        raise UserError("--plan and --dynamic both say how activations are quantized: one of them")
    if dynamic:
        return dynamic
    loaded = load(model)
    found = read_plan(plan) if plan is not None else plan_of(loaded)
    if ask_layers and found is None:
        raise UserError(f"--ask-layers: {model} has no plan that stores weights as bit layers")
    return "" if found is None else activations_of(found, loaded, for_kernels, ask_layers)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A function that is told how many kernels are compiled, and of how many; a bar on a terminal,
    nothing elsewhere."""
    console = output.console(stderr=True)
    if not console.is_terminal:
        yield lambda done, of: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    text, number = TextColumn("compiling"), TextColumn("{task.completed}/{task.total} kernels")
    with Progress(text, BarColumn(), number, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
