"""Options that several commands share, and what they mean."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.records import Log
    from lpgen.target import Target

target = click.option(
    "--target",
    default="native",
    metavar="NAME",
    help="The CPU to generate for, see `lpgen targets` [native].",
)

targets = click.option(
    "--targets",
    metavar="NAME[,NAME]...",
    help="Several of them in one library, which uses what its CPU runs best.",
)

seed = click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**31 - 1),
    help="Of all random choices.",
)

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


def _read_shapes(
    context: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    """Sizes by name from NAME=1x3x224x224, each."""
    shapes = {}
    for text in given:
        name, equals, sizes = text.rpartition("=")  # a name may have a "=" itself
        parts = sizes.split("x")
        if not (name and equals) or not all(part.isascii() and part.isdigit() for part in parts):
            raise UserError(f"--shape {text!r} is not NAME=SIZExSIZE..., such as image=1x3x224x224")
        shapes[name] = tuple(map(int, parts))
    return shapes


def _read_versions(
    context: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> list[dict[str, tuple[int, ...]]]:
    """Sizes by name from NAME=1x16,1x32 each: as many dicts as there are sizes of an input; an
    input with one size has it in all of them."""
    texts = {}
    for text in given:
        name, equals, sizes = text.rpartition("=")
        texts[name if equals else text] = [f"{name}{equals}{size}" for size in sizes.split(",")]
    count = max(map(len, texts.values()), default=1)
    for name, several in texts.items():
        if len(several) not in (1, count):
            raise UserError(
                f"--shape has {len(several)} sizes of {name[:80]} and {count} of another input"
            )
    return [
        _read_shapes(context, option, tuple(s[i % len(s)] for s in texts.values()))
        for i in range(count)
    ]


versions = click.option(
    "--shape",
    "versions",
    multiple=True,
    metavar="NAME=1x3x224x224[,...]",
    callback=_read_versions,
    help="Sizes of an input that the model leaves open; once for each input. With several sizes "
    "the library has a version of the network for each, on the same weights.",
)

shapes = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=1x3x224x224",
    callback=_read_shapes,
    help="Sizes of an input that the model leaves open; once for each.",
)

dynamic = click.option(
    "--dynamic",
    default="",
    metavar="FORMAT",
    help="Quantize activations to this format, with a scale for each row, where a model has "
    "float32 ones in front of quantized weights, or a scale found in each call; f32: weights "
    "become float32 there.",
)

plan = click.option(
    "--plan",
    type=click.Path(path_type=Path),
    metavar="PLAN.toml",
    help="How activations are quantized, layer by layer [the plan in the model, if any].",
)

library = click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="LIB.so",
    help="The library; its header LIB.h is written beside it.",
)


def trials(whose: str) -> Callable[[Callable], Callable]:
    """The option --trials of what tunes before it does something else, for the kernels `whose`."""
    return click.option(
        "--trials",
        default=0,
        show_default=True,
        type=click.IntRange(0, 1_000_000),
        help=f"Candidates to measure first, shared by {whose}.",
    )


threads = click.option(
    "--threads",
    default=1,
    show_default=True,
    help="Threads of a call, mostly: records tuned on as many come first.",
)


def devices(command: Callable) -> Callable:
    """The options --rpc, --key and --devices of commands that measure on devices."""
    several = click.option(
        "--devices", type=click.IntRange(1), metavar="N", help="How many at most [all]."
    )
    key = click.option("--key", help="Which devices: those that were started with this key.")
    rpc = click.option(
        "--rpc", metavar="HOST:PORT", help="Measure on devices that this tracker knows."
    )
    return rpc(key(several(command)))


def device(command: Callable) -> Callable:
    """The options --rpc and --key of commands that run on a device instead of this machine."""
    key = click.option("--key", help="Which device: one that was started with this key.")
    rpc = click.option(
        "--rpc", metavar="HOST:PORT", help="Run on a device that this tracker knows, not here."
    )
    return rpc(key(command))


def farm(rpc: str | None, key: str | None, devices: int | None) -> Any:
    """The devices to measure on, a context to be opened; of nothing, this machine."""
    from lpgen.cli import output

    if (rpc is None) != (key is None):
        raise UserError("--rpc and --key go together: where the tracker is, and which devices")
    if rpc is None:
        if devices:
            raise UserError("--devices is for --rpc")
        return contextlib.nullcontext()
    from lpgen.farm import Address, Farm

    return Farm(Address.parse(rpc), key, devices, output.note)


MAX_THREADS = 1024


def check_threads(threads: int) -> None:
    """Raise UserError for a number of threads that no kernel takes."""
    if not 1 <= threads <= MAX_THREADS:
        raise UserError(f"--threads {threads} is outside 1..{MAX_THREADS}")


def log(text: str) -> Callable:
    """The option --log with `text` as its help; the value is a path or None."""
    path = click.Path(path_type=Path)
    return click.option("--log", "log_path", type=path, metavar="FILE", help=text)


def targets_of(target: str, targets: str | None) -> list[Target]:
    """The targets that --target or --targets name, best first."""
    from lpgen.target import Target
    from lpgen.target.several import several

    if targets is None:
        return [Target.parse(target)]
    if target != "native":
        raise UserError("--target and --targets are both there; --targets names all of them")
    return several(targets.split(","))


def logs_of(path: Path | None, targets: Iterable[Target]) -> list[Log]:
    """The log given, or the user's for all of the targets (`logs_to_read`)."""
    found = {log.path: log for target in targets for log in logs_to_read(path, target)}
    return list(found.values())


def log_to_write(path: Path | None, target: Target) -> Log:
    """The log given, or the user's, whose folder is made. Raises RecordError if unwritable."""
    from lpgen.errors import RecordError
    from lpgen.records import Log, default_log

    if path is None:
        path = default_log(target)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"log {path}: {error.strerror}; --log FILE names another") from None
    found = Log(path)
    found.check_writable()
    return found


def logs_to_read(path: Path | None, target: Target) -> list[Log]:
    """The log given, or the user's: the target's and, behind it, those of the targets whose records
    serve it. Raises RecordError if the one given does not exist."""
    from lpgen.errors import RecordError
    from lpgen.records import Log, default_log

    if path is None:
        return [Log(default_log(row)) for row in (target, *target.lenders())]
    try:
        if not path.exists():
            raise RecordError(f"log {path}: does not exist")
    except OSError as error:
        raise RecordError(f"log {path}: {error.strerror}") from None
    return [Log(path)]
