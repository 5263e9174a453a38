"""Schedules as text to be read."""

import re
from typing import Any

_LEFT_OUT = re.compile(r"# |T\.(reads|writes|func_attr)\(|[\w, ]+ = T\.axis\.")
_INTRINSIC = re.compile(r'T\.call_llvm_(?:pure_)?intrin\("[^"]*", "llvm\.x86\.([^"]*)"(?:, )?')


def brief(module: Any, width: int = 100) -> str:
    """The TVMScript of an IRModule or PrimFunc, to be read for its loops and stages.

    Left out: comments, attributes, what blocks read and write, and how their axes follow from the
    loops. Instructions are called by their names. Lines are cut off at `width` columns.
    `module.script()` is the whole text.
    """
    lines = []
    for line in module.script().splitlines():
        text = line.lstrip()
        if text and not _LEFT_OUT.match(text):
            line = " " * ((len(line) - len(text)) // 2) + _INTRINSIC.sub(r"\1(", text)
            lines.append(line if len(line) <= width else f"{line[: width - 1]}…")
    return "\n".join(lines)
