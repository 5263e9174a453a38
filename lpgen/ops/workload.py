"""Workload texts: one line that is at once an operator's canonical name and how a user writes it.

    dense m=1024 n=1024 k=1024 act=u2 weight=s2 out=s32
    conv2d h=56 w=56 ic=64 oc=64 kernel=3x3 pad=1 act=u8 weight=s8
    dense m=64 n=256 k=512 act=u8 weight=s4 zero_act=3 out=u8 scale=channel bias=s32 relu zero_out=7
    quantize outer=1 axis=64 inner=3136 format=u8 per=axis
    add outer=1 inner=200704 a=u8 b=u8 out=u8 relu

The words of each kind, and their two-way texts, are the `WORDS` of its operator class, and those of
the epilogue behind the sums are the same for all (`epilogue.words`). Words with a default may be
left out, and their order is free. `str(op)` prints them in canonical order.
"""

import difflib
import importlib
import pkgutil
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from lpgen.errors import FormatError, WorkloadError
from lpgen.formats import Format
from lpgen.ops.epilogue import words as epilogue_words
from lpgen.ops.operator import Operator

_MAX_FILE = 1 << 24


@cache
def kinds() -> dict[str, type[Operator]]:
    """The operators by what their texts start with: the classes with a `kind` of the modules beside
    this one. The path is the registry."""
    found: dict[str, type[Operator]] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        for value in vars(importlib.import_module(f"{__package__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Operator) and "kind" in vars(value):
                found[value.kind] = value
    return dict(sorted(found.items()))


def parse(text: str) -> Operator:
    """The operator that `text` describes; `parse(str(op)) == op` for every operator.

    Raises WorkloadError naming the word that is wrong, or the limit that a shape breaks.
    """
    if not isinstance(text, str):
        raise WorkloadError(f"workload {_shown(repr(text))} is a {type(text).__name__}, not a text")
    words = text.split()
    if not words:
        raise WorkloadError(f"workload is empty; it starts with one of {', '.join(kinds())}")
    kind = kinds().get(words[0])
    if kind is None:
        known = f"{_near(words[0], kinds())}known: {', '.join(kinds())}"
        raise WorkloadError(f"workload kind {_shown(words[0])} is unknown; {known}")
    given: dict[str, Any] = {}
    for word in words[1:]:
        key, value = _read(kind, epilogue_words.ALIASES.get(word, word))
        if key in given:
            raise WorkloadError(f"{kind.kind}: {_shown(word)} gives {key} a second time")
        given[key] = value
    missing = [key for key in kind.WORDS if key not in given and key not in kind.defaults()]
    if missing:
        raise WorkloadError(f"{kind.kind}: missing {', '.join(f'{key}=' for key in missing)}")
    try:
        if kind.FUSES:
            steps = {key: given.pop(key) for key in epilogue_words.WORDS if key in given}
            given["epilogue"] = epilogue_words.chain_of(steps)
        return kind(**given)
    except ValueError as error:
        raise WorkloadError(f"{kind.kind}: {error}") from None


def with_epilogue(op: Operator, words: str) -> Operator:
    """The operator with the epilogue that `words` describe, such as "out=u8 scale=channel".

    Raises WorkloadError as `parse` does.
    """
    own = (*epilogue_words.WORDS, *epilogue_words.ALIASES)
    kept = [word for word in op.name.split() if word.partition("=")[0] not in own]
    return parse(" ".join([*kept, words]))


def _read(kind: type[Operator], word: str) -> tuple[str, Any]:
    """(key, value) of one `key=value` word."""
    key, equals, text = word.partition("=")
    if not equals:
        raise WorkloadError(f"{kind.kind}: {_shown(word)} is not key=value")
    keys = (*kind.WORDS, *(epilogue_words.WORDS if kind.FUSES else ()))
    if key not in keys:
        known = f"{_near(key, keys)}known: {', '.join(keys)}"
        raise WorkloadError(f"{kind.kind}: {_shown(word)} has an unknown key; {known}")
    try:
        if key not in kind.WORDS:
            return key, epilogue_words.read_word(key, text)
        return key, kind.WORDS[key].read(text)
    except (ValueError, FormatError) as error:
        raise WorkloadError(f"{kind.kind}: {_shown(word)}: {error}") from None


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name[:40], list(known), n=2)
    return f"did you mean {' or '.join(near)}? " if near else ""


def _shown(word: str) -> str:
    """The word in quotes, on one line and cut to a readable length."""
    return repr(word if len(word) <= 40 else word[:37] + "...")


def read_workloads(arguments: Iterable[str]) -> list[Operator]:
    """The operators of command-line arguments, in order and without repetitions.

    An argument is a workload, or `@FILE`: a UTF-8 file with one workload per line, where `#` starts
    a comment and empty lines are skipped. A pipe or a device is no file: it may never end.
    Raises WorkloadError, for a file with its name and line number.
    """
    found: list[Operator] = []
    for argument in arguments:
        if argument.startswith("@"):
            found += _read_file(Path(argument[1:]))
        else:
            found.append(parse(argument))
    return list(dict.fromkeys(found))


def _read_file(path: Path) -> list[Operator]:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise WorkloadError(f"workload file {str(path)!r}: is not a regular file")
        with path.open("rb") as file:
            text = file.read(_MAX_FILE + 1)
        if len(text) > _MAX_FILE:
            raise WorkloadError(f"workload file {str(path)!r} is longer than {_MAX_FILE} bytes")
        lines = text.decode("utf-8-sig").splitlines()  # editors put a mark in front
    except OSError as error:
        raise WorkloadError(f"workload file {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise WorkloadError(f"workload file {str(path)!r} is not UTF-8 text") from None
    found = []
    for number, line in enumerate(lines, 1):
        if text := line.partition("#")[0].strip():
            try:
                found.append(parse(text))
            except WorkloadError as error:
                raise WorkloadError(f"{path}:{number}: {error}") from None
    if not found:
        raise WorkloadError(f"workload file {str(path)!r} holds no workload")
    return found


def formats_of_bits(text: str) -> tuple[Format, Format]:
    """(act, weight) that "wXaY" means: act=uY, weight=sX, and b1 for one-bit weights.

    Raises FormatError unless X and Y are 1..8.
    """
    match = re.fullmatch(r"w([0-9])a([0-9])", text)
    if not match or not all(1 <= int(bits) <= 8 for bits in match.groups()):
        raise FormatError(f"bits {_shown(text)} are not wXaY with X and Y of 1..8, such as w2a8")
    weight, act = (int(bits) for bits in match.groups())
    return Format("u", act), Format("b", 1) if weight == 1 else Format("s", weight)
