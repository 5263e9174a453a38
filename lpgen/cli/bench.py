"""`lpgen bench`: how fast the kernels of a library are, beside what this machine can do."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import against as others
from lpgen.cli import jobs, networks, options, output, remote, workloads
from lpgen.cli import untuned as untuned_kernels
from lpgen.cli.measurements import build_for, counts_of, of_sizes, print_measurements
from lpgen.cli.variants import bench as time_variants
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.bench.contest import Contest
    from lpgen.ops import Operator

ROUNDS = 15
PREFIX = "against"


@click.command()
@workloads.operators("LIB.so | [WORKLOAD | @FILE]...")
@options.target
@options.log("Records for WORKLOADs, before those that come with lpgen [the user's log].")
@click.option("--threads", default=1, show_default=True, help="Threads of each call.")
@click.option("--warm", is_flag=True, help="Weights in the L3 cache where they would be cold.")
@click.option(
    "--against",
    metavar="NAMES",
    help="Compare with other libraries, such as onnxruntime,openvino, or all.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="MODEL.onnx",
    help="What a network was compiled of: others run it with --against.",
)
@click.option(
    "--inputs",
    "given",
    multiple=True,
    metavar="FILE.npz|NAME=LOW..HIGH",
    help="Arrays by the names of a network's inputs, or a range of numbers of one [random].",
)
@click.option("--rounds", type=click.IntRange(3, 1000), help="Rounds of a comparison [15].")
@click.option(
    "--save",
    "prefix",
    type=click.Path(path_type=Path),
    metavar="PREFIX",
    help="A comparison is saved as PREFIX.json and PREFIX.png [against].",
)
@click.option(
    "--untuned",
    is_flag=True,
    help="What the cost model chooses and what lesser CPUs' records give, beside this CPU's own.",
)
@click.option(
    "--variants",
    is_flag=True,
    help="Time the plans and numbers of bit layers of a network, and keep the times beside it.",
)
@click.option(
    "--rows",
    metavar="N[,N]...",
    help="Rows, or images, of kernels with a range of them [some that stand for all].",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="JOBS.toml",
    help="Measure what a job file says; interrupted, it goes on.",
)
@options.device
@options.as_json
def command(
    asked: workloads.Asked,
    target: str,
    log_path: Path | None,
    threads: int,
    warm: bool,
    against: str | None,
    model: Path | None,
    given: tuple[str, ...],
    rounds: int | None,
    prefix: Path | None,
    untuned: bool,
    variants: bool,
    rows: str | None,
    config: Path | None,
    rpc: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Time kernels, in turns with what bounds them, or with other libraries.

    The kernels are those of a library, or of one that is built for WORKLOADs or a suite as `lpgen
    build` would. The bound is the compute peak (a loop of the best instruction on registers) or the
    bandwidth of the memory in which the kernel's data lie, whichever takes longer. Kernels for few
    rows whose weights exceed the L2 cache are timed cold: with other weights at each call, out of
    memory, or, with --warm, with those few that the L3 cache holds and the L2 cache does not.

    With --against every other library that is installed (pip install 'lpgen[bench]') runs the same
    operators on its prepacked weights, in its fastest layout, on as many threads, in turns with
    ours, after its results were checked; weights are the same at each call.

    A library of a network is timed as a whole, and step by step: in calls of the whole, and alone.
    With --against and --model other libraries run the ONNX file on the same inputs, in turns with
    it.

    With --variants the plans of a network's library (`lpgen compile --faster`), with every number
    of bit layers, are timed in turns; LIB.times.json keeps that for `load("LIB.so").variants()`.

    A kernel with a range of rows (dense m=1..512) is timed with some numbers of them, or those of
    --rows.

    With --untuned every WORKLOAD is built three times and timed in turns: as the cost model chooses
    without any record, with records of lesser CPUs alone, and with the record of this one, where
    there is one; at the end stand geometric means of the speed beside the tuned one's.

    With --rpc and --key kernels and networks are timed on a device (`lpgen rpc-server`), which
    nobody else has meanwhile; WORKLOADs are built here, for --target [the device's CPU].

    With --config a job file says what is measured: suites, workloads, networks, targets, threads,
    peers, and on which devices. Every result is kept at once in JOBS.jsonl; at the end all of them
    are shown, as a table, JOBS.json, and JOBS.TARGET.png for each target (--save: other names).
    """
    if config is not None:
        elsewhere = (asked.suite, against, model, rounds, rows, rpc, key) != (None,) * 7
        if elsewhere or asked.workloads or asked.formats.given or given or warm or untuned:
            raise UserError("--config says all but --log, --save and --json in the job file")
        jobs.run(config, prefix, log_path, as_json)
        return
    leases = remote.leases(rpc, key)
    if leases is not None and (untuned or variants or against is not None or model is not None):
        raise UserError(
            "--against, --model, --variants and --untuned are for this machine, not for --rpc"
        )
    if variants and against is not None:
        raise UserError("--variants are those of one library: --against is for the first plan")
    if untuned:
        if (against, rounds, prefix, rows) != (None,) * 4 or warm or threads != 1:
            raise UserError("--untuned takes operators, --target, --log and --json only")
        operators = asked.operators()
        _untuned(operators, target, log_path, as_json)
        return
    options.check_threads(threads)
    if against is None and (rounds is not None or prefix is not None):
        raise UserError("--rounds and --save are for --against NAMES")
    if against is not None and warm:
        raise UserError(
            "--warm is for kernels alone: with --against weights are the same each time"
        )
    from lpgen.build.scratch import scratch_folder

    names = None if against is None else others.names_of(against)
    if names is not None:
        others.check_prefix(prefix or Path(PREFIX))
    library = _library_among(asked, target, log_path)
    if leases is not None:
        there = remote.Bench(leases, threads, warm, rows, given, as_json)
        if library is not None:
            there.library(library)
        else:
            there.operators(asked.operators(), target, log_path)
        return
    with contextlib.ExitStack() as stack:
        if library is not None:
            if networks.holds_network(library):
                if warm or prefix:
                    raise UserError(f"{library} is a network: --warm and --save are for kernels")
                if variants:
                    time_variants(library, given, threads, as_json)
                    return
                settings = {"threads": threads, "rounds": rounds or ROUNDS}
                networks.bench(library, model, names, given, settings, as_json)
                return
            labels = {name: "" for name in _kernels(library)}
        else:
            library = stack.enter_context(scratch_folder()) / "bench.so"
            operators = asked.operators()
            build_for(operators, target, log_path, threads, library)
            labels = {op.name: label for op, label in operators.items()}
        if model is not None or given or variants:
            raise UserError("--model, --inputs and --variants are for a network's library")
        counts = counts_of(rows, labels)
        labels = of_sizes(labels, counts)
        if names is None:
            _bench(library, labels, threads, warm, counts, as_json)
            return
        prefix = prefix or Path(PREFIX)
        settings = {"threads": threads, "rounds": rounds or ROUNDS}
        report = others.run(_contest(library, names, settings), library, labels, as_json)
    if not as_json:
        others.print_report(report)
    title = f"{asked.suite} {asked.formats.title}" if asked.suite else library.name
    others.save(report, prefix, title)


def _library_among(asked: workloads.Asked, target: str, log_path: Path | None) -> Path | None:
    """The library that is asked for; None: WORKLOADs are. Raises UserError for both."""
    what = asked.workloads
    named = [text for text in what if _names_a_library(text)]
    if not named:
        return None
    if len(what) > 1:
        raise UserError(f"{named[0]} is a library: one is timed at a time, and alone")
    if asked.suite or asked.formats.given:
        raise UserError(f"{what[0]} is a library: --suite and formats are for workloads")
    if log_path or target != "native":
        raise UserError(f"{what[0]} is a library: --target and --log are for workloads")
    return Path(what[0])


def _names_a_library(text: str) -> bool:
    """Whether the argument is the path of a library, and no @FILE or workload of several words."""
    return not text.startswith("@") and (text.endswith(".so") or len(text.split()) == 1)


def _kernels(library: Path) -> list[str]:
    """The kernels of a library that this CPU can run."""
    from lpgen import runtime

    return runtime.load(library).kernels


def _untuned(
    operators: Mapping[Operator, str], target: str, log_path: Path | None, as_json: bool
) -> None:
    from lpgen.target import Target

    chosen = Target.parse(target)
    untuned_kernels.run(operators, chosen, options.logs_to_read(log_path, chosen), as_json)


def _contest(library: Path, names: list[str], settings: dict[str, int]) -> Contest:
    """For the target of the library's first kernel that is in use."""
    from lpgen import runtime
    from lpgen.bench.contest import Contest
    from lpgen.target import Target

    loaded = runtime.load(library)
    target = Target.parse(loaded[loaded.kernels[0]].variant["target"])
    return Contest(names, target, **settings)


def _bench(
    library: Path,
    labels: Mapping[str, str],
    threads: int,
    warm: bool,
    counts: tuple[int, ...],
    as_json: bool,
) -> None:
    from lpgen import runtime

    loaded = runtime.load(library)
    from lpgen.bench import bench

    measurements = bench(loaded, threads=threads, warm=warm, rows=counts)
    if as_json:
        for measurement in measurements:
            output.print_json(measurement.describe())
        return
    print_measurements(measurements, labels)
