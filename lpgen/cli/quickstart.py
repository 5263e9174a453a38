"""`lpgen quickstart`: the main job on a small real suite, from tuning to a checked library."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import options, output
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.ops import Operator
    from lpgen.records import Log
    from lpgen.target import Target
    from lpgen.tune import TuneResult

TRIALS = 24


@click.command()
@click.option(
    "--out",
    "folder",
    default="lpgen-quickstart",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The folder for what is left: library, header, tuning log.",
)
@click.option(
    "--trials",
    default=TRIALS,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Candidates for each operator.",
)
@options.seed
def command(folder: Path, trials: int, seed: int) -> int:
    """Tune five layers for this CPU, export them, check and time the library.

    Three convolutions of ResNet-18 with 8 bits, one with 2 bits, and a dense layer of BERT-base
    with 4 bits. Takes a minute or two; a second run goes on from the log of the first.
    """
    from lpgen.build import check_output, header_path
    from lpgen.build.check import check_library
    from lpgen.cli import check, tuning
    from lpgen.cli.checked import print_kernels
    from lpgen.target import cpu_fingerprint, detect

    started = time.monotonic()
    target, labels = detect(), layers()
    log = _log(folder, target)
    library = check_output(folder / "quickstart.so")
    click.echo(f"{cpu_fingerprint()['brand']}: target {target.name}, {' '.join(target.families)}")
    click.echo(f"tuning {len(labels)} layers, {trials} candidates each")
    settings = {"trials": trials, "seed": seed, "jobs": target.cores}
    results: list[TuneResult] = []
    began = time.monotonic()
    tuning.run(labels, target, log, settings, results.append)
    output.note(tuning.rate(results, time.monotonic() - began))
    _build(labels, target, log, library)
    click.echo("checking every kernel against the NumPy oracle, in a fresh process")
    if print_kernels(check_library(library, seed), as_json=False):
        return check.WRONG
    _bench(library, labels)
    files = [library, header_path(library), log.path]
    click.echo(f"done in {time.monotonic() - started:.0f} s; files:")
    for path in files:
        click.echo(f"  {folder / path.name}  ({output.file_size(path.stat().st_size)})")
    return 0


def layers() -> dict[Operator, str]:
    """The operators of the quickstart with their labels."""
    from lpgen.ops.suites import layers as suite

    wanted = (
        ("resnet18", "u8", "s8", "layer1.conv"),
        ("resnet18", "u8", "s8", "layer3.conv"),
        ("resnet18", "u8", "s8", "layer4.conv"),
        ("resnet18", "u2", "s2", "layer2.conv"),
        ("bert_base", "u4", "s4", "attention"),
    )
    found = {}
    for name, act, weight, layer in wanted:
        label, op = next(entry for entry in suite(name, act, weight) if entry[0].startswith(layer))
        found[op] = f"{label} {act} x {weight}"
    return found


def _log(folder: Path, target: Target) -> Log:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder {folder}: {error.strerror}; --out DIR names another") from None
    return options.log_to_write(folder / f"{target.name}.jsonl", target)


def _build(labels: dict[Operator, str], target: Target, log: Log, library: Path) -> None:
    from lpgen.build import build
    from lpgen.records.choose import choose

    build([choose(op, target, [log]) for op in labels], library)


def _bench(library: Path, labels: dict[Operator, str]) -> None:
    from lpgen.bench import bench
    from lpgen.cli.measurements import print_measurements

    named = {op.name: label for op, label in labels.items()}
    print_measurements(bench(library), named)
