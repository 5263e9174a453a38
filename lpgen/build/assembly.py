"""Hot loops of a kernel's assembly: the innermost loops around its multiplications."""

import re
from typing import NamedTuple

# Instructions that a low-precision kernel is about: x86 in AT&T syntax as LLVM prints it, Arm,
# RISC-V.
MULTIPLYING = re.compile(
    r"v?p(dpbusd|dpwssd|maddubsw|maddwd|mull[wdq]|muldq|muludq)s?|tdpb[su]{2}d"
    r"|[su]?ml[as]l?2?|[su]mull2?|mul|[su]dot|usdot|[su]mmla|usmmla"
    r"|v(mull|mlal|mul|mla)\.\w+|v(wmacc|wmul|macc|mul)(u|us|su)?\.v[vx]"
)
PAIRING = re.compile(r"v?pmaddubsw")
"""Of these what leaves it to others to add up its products: where there is one, vpmaddwd adds."""
LOOKING_UP = re.compile(r"v?pshufb|vperm[it]?2?b|tb[lx]|vtb[lx]\.\w+|vrgather(ei16)?\.v[vxi]")
COUNTING = re.compile(r"v?popcnt[bwdlq]?|v?pshufb|v?cnt(\.\w+)?|vrgather\.v[vxi]|vcpop\.v")
"""What counts bits, or looks up how many a byte has."""
KEY = re.compile(
    "|".join((MULTIPLYING.pattern, LOOKING_UP.pattern, COUNTING.pattern, "vpternlog[dq]"))
)

# Elsewhere it computes addresses.
_SCALAR = re.compile(r"imul[lq]?|mulw?")
_ADDRESS = re.compile(r"\s+mul\s+(?!v\d)")
_LABEL = re.compile(r"([.\w$]+):")
_JUMP = re.compile(
    r"\s+(?:j|b|cbn?z|tbn?z)[\w.]*\s+(?:\w+, ){0,2}(?:#\d+, )?(\.[\w.$]+|\w[\w.$]*)$"
)
_STORE = re.compile(
    r"\s+(?:v?mov\w+\s+%[xyz]mm\d+, (?!.*\(%r[sb]p)"
    r"|v?st[1-4rp]\w*(?:\.\d+)?\s+(?!.*\[sp).*[qdv]\d+\b"
    # RISC-V; whole registers (vs1r.v) go to the stack.
    r"|vss?e(?:g\de)?\d+\.v\s+v\d+).*[(\[]"
)
_SPILL = re.compile(
    r"\s+(?:v?mov\w+\s+%[xyz]mm\d+, .*\(%rsp|v?st[1-4rp]\w*(?:\.\d+)?\s.*[qdv]\d+\b.*\[sp"
    r"|vs[1248]r\.v\s)"
)
_HINT = re.compile(r"\s+(prefetch|prfm|pld)")
_COMMENT = re.compile(r"\s*(?:#|//|@) .*")
_INSTRUCTION = re.compile(r"\s+([a-z][\w.]*)")


class Loop(NamedTuple):
    """A loop of `function`: its lines, and how many key instructions they hold."""

    function: str
    lines: list[str]
    key_instructions: int

    def holds(self, key: re.Pattern[str]) -> int:
        """How many of its instructions are such."""
        return _count(self.lines, key)

    @property
    def stores(self) -> int:
        """Vectors that it writes to memory; what lies on the stack had no register."""
        return sum(_STORE.match(line) is not None for line in self.lines)

    @property
    def asks_ahead(self) -> bool:
        """Whether it asks for memory in advance."""
        return any(_HINT.match(line) is not None for line in self.lines)

    @property
    def spilled(self) -> int:
        """Writes of vectors that had no register."""
        return sum(_SPILL.match(line) is not None for line in self.lines)


def functions(assembly: str) -> dict[str, list[str]]:
    """The instructions and jump labels of each function, by its name."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    begins = {name for name in re.findall(r"\.type\s+([\w.$]+),[@%]function", assembly)}
    for line in assembly.splitlines():
        label = _LABEL.match(line)
        if label and label[1] in begins:
            lines = found.setdefault(label[1], [])
        elif line.startswith(".Lfunc_end"):
            lines = None
        elif lines is not None and (_INSTRUCTION.match(line) or line.startswith(".LBB")):
            lines.append(_COMMENT.sub("", line).rstrip())
    return found


def innermost_loops(function: str, lines: list[str], key: re.Pattern[str] = KEY) -> list[Loop]:
    """The loops that contain no other, in order: from a label to the last jump back to it."""
    places = {m[1]: i for i, line in enumerate(lines) if (m := _LABEL.match(line))}
    ends: dict[int, int] = {}
    for i, line in enumerate(lines):
        jump = _JUMP.match(line)
        if jump and places.get(jump[1], i) < i:
            ends[places[jump[1]]] = i
    spans = sorted(ends.items())

    def holds_another(a: int, b: int) -> bool:
        return any(a <= c and d <= b for c, d in spans if (c, d) != (a, b))

    bodies = [lines[a : b + 1] for a, b in spans if not holds_another(a, b)]
    return [Loop(function, body, _count(body, key)) for body in bodies]


def hot_loops(assembly: str) -> list[Loop]:
    """The innermost loops that hold key instructions, those that hold little else first.

    Where no loop holds any (a kernel so small that nothing is left to loop over): the bodies of the
    functions that do. Scalar multiplications count only where there are no key instructions.
    """
    # TVM adds entry points; that of a lone function is a copy of it.
    bodies = [(n, lines) for n, lines in functions(assembly).items() if not n.startswith("__tvm_")]
    hot: list[Loop] = []
    for key in (KEY, _SCALAR):
        loops = [loop for name, lines in bodies for loop in innermost_loops(name, lines, key)]
        straight = [Loop(name, lines, _count(lines, key)) for name, lines in bodies]
        for found in (loops, straight):
            hot = hot or [loop for loop in found if loop.key_instructions]
    return sorted(hot, key=lambda loop: -loop.key_instructions / len(loop.lines))


def product_loop(loops: list[Loop], key: re.Pattern[str] = KEY) -> Loop:
    """The loop that sums up products: that with most of the key instructions, among those that
    write at most half as many results (others make tables, bit planes or operands)."""
    summing = [loop for loop in loops if 2 * loop.stores <= loop.holds(key)]
    return max(summing or loops, key=lambda loop: loop.holds(key))


def _count(lines: list[str], key: re.Pattern[str]) -> int:
    found = (line for line in lines if key is _SCALAR or not _ADDRESS.match(line))
    names = (m[1] for line in found if (m := _INSTRUCTION.match(line)))
    return sum(key.fullmatch(name) is not None for name in names)
