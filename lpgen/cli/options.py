"""Options that several commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.formats import Format
    from lpgen.ops import Operator
    from lpgen.records import Log
    from lpgen.target import Target

DEFAULT_BITS = "w8a8"

_FORMATS = "u1..u8, s2..s8, b1..b7, t2 or c1..c4:VALUE,VALUE,..."


def _joined(*decorators: Callable) -> Callable:
    def apply(function: Callable) -> Callable:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


formats = _joined(
    click.option(
        "--bits",
        metavar="wXaY[,...]",
        help=f"Formats of a suite, or several one after the other [{DEFAULT_BITS}].",
    ),
    click.option("--act", metavar="FORMAT", help=f"Format of its activations: {_FORMATS}."),
    click.option("--weight", metavar="FORMAT", help="Format of its weights."),
    click.option(
        "--epilogue", metavar="WORDS", help='Of its operators, such as "out=u8 scale=channel".'
    ),
)

workloads = _joined(
    click.argument("workloads", nargs=-1, metavar="[WORKLOAD | @FILE]..."),
    click.option("--suite", metavar="NAME", help="The layers of a network, see `lpgen suites`."),
    formats,
)

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

MAX_THREADS = 1024


def check_threads(threads: int) -> None:
    """Raise UserError for a number of threads that no kernel takes."""
    if not 1 <= threads <= MAX_THREADS:
        raise UserError(f"--threads {threads} is outside 1..{MAX_THREADS}")


def log(text: str) -> Callable:
    """The option --log with `text` as its help; the value is a path or None."""
    path = click.Path(path_type=Path)
    return click.option("--log", "log_path", type=path, metavar="FILE", help=text)


def act_and_weight(
    bits: str | None, act: str | None, weight: str | None
) -> dict[str, tuple[Format, Format]]:
    """The pairs of formats that --bits, --act and --weight mean together, by their texts."""
    from lpgen.formats import Format
    from lpgen.ops import formats_of_bits

    if bits and act and weight:
        raise UserError("--bits is said twice: --act and --weight already give both formats")
    pairs = {}
    for text in (bits or DEFAULT_BITS).split(","):
        default_act, default_weight = formats_of_bits(text.strip())
        pairs[text.strip()] = (
            Format.parse(act) if act else default_act,
            Format.parse(weight) if weight else default_weight,
        )
    return pairs


def layers(
    suite: str, bits: str | None, act: str | None, weight: str | None, epilogue: str | None
) -> dict[Operator, str]:
    """The operators of a suite with their labels, for each pair of formats."""
    from lpgen.ops import suites, with_epilogue

    pairs = act_and_weight(bits, act, weight)
    found = {}
    for text, pair in pairs.items():
        for name, op in suites.layers(suite, *pair):
            op = with_epilogue(op, epilogue) if epilogue else op
            found[op] = f"{name} {text}" if len(pairs) > 1 else name
    return found


def operators(
    workloads: tuple[str, ...],
    suite: str | None,
    bits: str | None,
    act: str | None,
    weight: str | None,
    epilogue: str | None,
) -> dict[Operator, str]:
    """The operators asked for, in order, with the labels that tables show.

    Raises UserError when none is asked for.
    """
    from lpgen.ops import read_workloads

    found = {op: op.label for op in read_workloads(workloads)}
    if suite is not None:
        found |= layers(suite, bits, act, weight, epilogue)
    elif bits or act or weight or epilogue:
        raise UserError("--bits, --act, --weight and --epilogue are for the operators of a --suite")
    if not found:
        raise UserError("nothing to do: give WORKLOADs, @FILE or --suite NAME")
    return found


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
