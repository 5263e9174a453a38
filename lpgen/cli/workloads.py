"""The operators that a command line asks for: WORKLOADs, files of them, the layers of a suite.

A command takes them by a decorator, and one object for all of their options.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.formats import Format
    from lpgen.ops import Operator

DEFAULT_BITS = "w8a8"

_FORMATS = "u1..u8, s2..s8, b1..b7, t2 or c1..c4:VALUE,VALUE,..."


@dataclass(frozen=True)
class Formats:
    """What is said of the formats of a suite: texts, or None where an option is not given."""

    bits: str | None
    act: str | None
    weight: str | None
    epilogue: str | None

    @property
    def given(self) -> bool:
        """Whether any of the options is."""
        return bool(self.bits or self.act or self.weight or self.epilogue)

    @property
    def title(self) -> str:
        """The texts, for a table that is saved."""
        texts = (self.act, self.weight, self.bits or DEFAULT_BITS, self.epilogue)
        return " ".join(filter(None, texts))

    def pairs(self) -> dict[str, tuple[Format, Format]]:
        """The pairs of formats that --bits, --act and --weight mean together, by their texts."""
        from lpgen.formats import Format
        from lpgen.ops import formats_of_bits

        if self.bits and self.act and self.weight:
            raise UserError("--bits is said twice: --act and --weight already give both formats")
        pairs = {}
        for text in (self.bits or DEFAULT_BITS).split(","):
            act, weight = formats_of_bits(text.strip())
            pairs[text.strip()] = (
                Format.parse(self.act) if self.act else act,
                Format.parse(self.weight) if self.weight else weight,
            )
        return pairs

    def layers(self, suite: str) -> dict[Operator, str]:
        """The operators of a suite with their labels, for each pair of formats."""
        from lpgen.ops import suites, with_epilogue

        pairs = self.pairs()
        found = {}
        for text, pair in pairs.items():
            for name, op in suites.layers(suite, *pair):
                op = with_epilogue(op, self.epilogue) if self.epilogue else op
                found[op] = f"{name} {text}" if len(pairs) > 1 else name
        return found


@dataclass(frozen=True)
class Asked:
    """What is said of operators: texts of workloads, and perhaps a suite with its formats."""

    workloads: tuple[str, ...]
    suite: str | None
    formats: Formats

    def operators(self) -> dict[Operator, str]:
        """The operators asked for, in order, with the labels that tables show.

        Raises UserError when none is asked for.
        """
        from lpgen.ops import read_workloads

        found = {op: op.label for op in read_workloads(self.workloads)}
        if self.suite is not None:
            found |= self.formats.layers(self.suite)
        elif self.formats.given:
            raise UserError(
                "--bits, --act, --weight and --epilogue are for the operators of a --suite"
            )
        if not found:
            raise UserError("nothing to do: give WORKLOADs, @FILE or --suite NAME")
        return found


_FORMAT_OPTIONS = (
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


def formats(command: Callable) -> Callable:
    """The options of formats, as the argument `formats`."""

    @functools.wraps(command)
    def call(bits, act, weight, epilogue, **others):
        return command(formats=Formats(bits, act, weight, epilogue), **others)

    return _with_options(call, *_FORMAT_OPTIONS)


def operators(metavar: str = "[WORKLOAD | @FILE]...") -> Callable:
    """The argument and options of operators, as the argument `asked`; metavar: what the command
    takes, for its help."""

    def decorate(command: Callable) -> Callable:
        @functools.wraps(command)
        def call(workloads, suite, formats, **others):
            return command(asked=Asked(workloads, suite, formats), **others)

        argument = click.argument("workloads", nargs=-1, metavar=metavar)
        suite = click.option(
            "--suite", metavar="NAME", help="The layers of a network, see `lpgen suites`."
        )
        return _with_options(formats(call), argument, suite)

    return decorate


def _with_options(command: Callable, *decorators: Callable) -> Callable:
    for decorator in reversed(decorators):
        command = decorator(command)
    return command
