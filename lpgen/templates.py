"""Which templates there are and which serve: found by path.

The path is the registry. `schedules/common/<algorithm>` is a template of every family that has an
`isa` module, and is given the Isa of the target, which `isa_of(target)` there makes.
`schedules/<family>/<algorithm>` is one of that family alone, stands before the common one of the
same name, and is given the target. Either is a module or a package that offers, with `cpu` as said:

    why_not(op, cpu) -> str | None           None where it serves the operator, else the reason
    space(op, cpu) -> Space                  its knobs
    work(op, cpu, knobs) -> Counts           what a kernel does, for the cost model; else
    default(op, cpu) -> Knobs                the knobs of a first guess
    kernel(op, cpu, knobs) -> Kernel         raises ScheduleRefused

    SERVES = ("conv2d", "dense")             which operators: those whose `needs` are all in it

A module without SERVES has the one shown, for products without scales of groups of k. An operator
with a range of sizes (`ops.rows`) reaches the functions of a module with RANGED = True as it is;
with the others a convolution gets the kernel of one image, once for each. A module without
`why_not` is a part that templates share. `schedules/<family>/peak` says what bounds the family's
kernels.
"""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import lpgen.schedules
from lpgen.errors import UserError
from lpgen.space import Space

_ROOT = lpgen.schedules.__name__
COMMON = "common"
"""The folder of what several families share."""

PRODUCTS = ("conv2d", "dense")
"""What a module serves that does not say it."""

_NAME = re.compile(r"([a-z0-9_]+)/([a-z0-9_]+)")

# What logs of versions before 0.2 call templates: x86/dot on AVX2 was avx2/dot. Algorithms that
# gain nothing from VNNI were those of AVX-512BW.
_EARLIER_LEVELS = ("sse4", "avx2", "avx512bw", "avx512vnni")
_EARLIER_NAMES = {"group_dot": "blockwise_dot", "grouped": "grouped_conv"}
_WITHOUT_VNNI = ("bitserial", "lut_product", "lut_sum", "lut_weight")


@dataclass(frozen=True)
class Template:
    """One algorithm scheduled for one family of CPUs; `name` is e.g. "x86/dot"."""

    family: str
    algorithm: str

    @property
    def name(self) -> str:
        return f"{self.family}/{self.algorithm}"

    @property
    def module(self) -> ModuleType:
        folder = COMMON if self._common else self.family
        return importlib.import_module(f"{_ROOT}.{folder}.{self.algorithm}")

    @property
    def _common(self) -> bool:
        return self.algorithm not in _found_in(self.family)

    def _cpu(self, target: Any) -> Any:
        """What the functions of the module are given for a target."""
        if not self._common:
            return target
        return _part(self.family, "isa").isa_of(target).serving(self.algorithm)

    def level(self, target: Any) -> str:
        """What of a family with levels the target has, such as "avx2"; else the family."""
        return self._cpu(target).level if self._common else self.family

    @property
    def serves(self) -> tuple[str, ...]:
        """What the operators may need that it serves: kinds, and words for what not all do."""
        return getattr(self.module, "SERVES", PRODUCTS)

    def why_not(self, op: Any, target: Any) -> str | None:
        """None where the template serves the operator on the target, else the reason why not."""
        if self.family not in target.families:
            return f"it is for {self.family}; {target.name} has {' '.join(target.families)}"
        if missing := [need for need in op.needs if need not in self.serves]:
            *first, last = self.serves
            known = f"{', '.join(first)} and {last}" if first else last
            return f"it is for {known}, not {missing[0]}"
        if reason := self._why_no_range(op):
            return reason
        return self.module.why_not(self._told(op), self._cpu(target))

    def _why_no_range(self, op: Any) -> str | None:
        """Why it serves a range of sizes not at all, or None."""
        if op.range is None:
            return None
        if op.kind != "conv2d":
            return None if self._ranged else f"it serves one {op.ROWS}, not {op.range}"
        if op.input == "f32:tensor":
            return f"it computes one image at a time, and input={op.input} has a scale of them all"
        return None

    @property
    def _ranged(self) -> bool:
        return getattr(self.module, "RANGED", False)

    def _told(self, op: Any) -> Any:
        """What the module is asked about the operator: that with one image, if it is repeated."""
        if op.range is None or (self._ranged and op.kind != "conv2d"):
            return op
        return op.with_rows(1)

    def space(self, op: Any, target: Any) -> Space:
        """All its knobs for this operator on this target."""
        return self.module.space(self._told(op), self._cpu(target))

    def default(self, op: Any, target: Any) -> dict:
        """The knobs used where nothing was tuned; always a point of `space`: what the cost model
        likes best, or what the template itself says."""
        if not self.counted:
            return self.module.default(self._told(op), self._cpu(target))
        from lpgen import cost

        return cost.best_points(op, target, self)[0]

    @property
    def counted(self) -> bool:
        """Whether the template counts its work, which the cost model prices."""
        return hasattr(self.module, "work")

    def work(self, op: Any, target: Any, knobs: dict) -> dict[str, float]:
        """What a kernel with these knobs does, counted: instructions of each kind, bytes from each
        cache and the like, by the names in `lpgen.cost.features`."""
        return self.module.work(self._told(op), self._cpu(target), knobs)

    def kernel(self, op: Any, target: Any, knobs: dict) -> Any:
        """The scheduled Kernel. Raises ScheduleRefused where the schedule refuses these knobs, and
        TooLarge, which is one, where a buffer would leave int32."""
        from lpgen.build import sizes  # imports TVM, as the schedules do

        told = self._told(op)
        with sizes.scheduling(told):
            kernel = self.module.kernel(told, self._cpu(target), knobs)
        sizes.check(kernel, target)
        return kernel if told == op else repeated(op, kernel)

    def __str__(self) -> str:
        return self.name


def repeated(op: Any, kernel: Any) -> Any:
    """The RangedKernel that calls the kernel of one image (or row) for each of the range."""
    from lpgen.algorithms.kernel import Body, RangedKernel

    return RangedKernel.of(op, [Body(1, kernel.module)], [0], kernel.layout)


def _folders() -> frozenset[str]:
    """The families; no other name becomes that of a module to import."""
    found = pkgutil.iter_modules(lpgen.schedules.__path__)
    return frozenset(folder.name for folder in found if folder.ispkg) - {COMMON}


@cache
def _found_in(folder: str) -> tuple[str, ...]:
    """The names of the modules in a folder of schedules, sorted."""
    package = importlib.import_module(f"{_ROOT}.{folder}")
    return tuple(sorted(module.name for module in pkgutil.iter_modules(package.__path__)))


def _part(family: str, name: str) -> ModuleType | None:
    """The module `name` of a family, if it has one."""
    if name not in _found_in(family):
        return None
    return importlib.import_module(f"{_ROOT}.{family}.{name}")


@cache
def algorithms_of(family: str) -> tuple[str, ...]:
    """The algorithms that there are for this family, sorted (empty: no such family)."""
    if family not in _folders():
        return ()
    common = _found_in(COMMON) if _part(family, "isa") else ()
    names = sorted({*_found_in(family), *common})
    return tuple(name for name in names if hasattr(Template(family, name).module, "why_not"))


def peak_of(family: str, target: Any, knobs: dict) -> Any:
    """The Peak that bounds the family's kernels with these knobs on the target, or None."""
    part = _part(family, "peak") if family in _folders() else None
    return part and part.peak(target, knobs)


def templates_of(target: Any) -> list[Template]:
    """Every template in the target's chain of families, best family first."""
    return [Template(f, algorithm) for f in target.families for algorithm in algorithms_of(f)]


def explain(op: Any, target: Any) -> dict[Template, str | None]:
    """Each template of the chain with None where it is used, else the reason why it is not.

    For each algorithm the first family of the chain that has it and applies is used; the later
    families are answered with the one that serves in their stead.
    """
    answers: dict[Template, str | None] = {}
    serving: dict[str, str] = {}
    for template in templates_of(target):
        if template.algorithm in serving:
            answers[template] = f"{serving[template.algorithm]} serves instead"
            continue
        answers[template] = template.why_not(op, target)
        if answers[template] is None:
            serving[template.algorithm] = template.name
    return answers


def no_template(op: Any, target: Any, reasons: Mapping[Template, str | None]) -> str:
    """The message that none of these serves an operator: the reasons of those that are for such
    operators at all, or of all."""
    own = {template: why for template, why in reasons.items() if op.kind in template.serves}
    listed = "; ".join(f"{template.name}: {why}" for template, why in (own or reasons).items())
    return f"{op.name}: no template applies on {target.name}: {listed}"


def templates_for(op: Any, target: Any) -> list[Template]:
    """The templates that serve the operator on the target, best family first."""
    return [template for template, reason in explain(op, target).items() if reason is None]


def known() -> list[str]:
    """The names of all templates of all families, sorted."""
    families = sorted(_folders())
    return [Template(f, algorithm).name for f in families for algorithm in algorithms_of(f)]


def get(name: str) -> Template:
    """The template of that name, e.g. "x86/dot". Raises UserError listing what is known.

    Names that earlier versions used are understood.
    """
    match = _NAME.fullmatch(current_name(name)) if isinstance(name, str) else None
    if match and match[2] in algorithms_of(match[1]):
        return Template(match[1], match[2])
    shown = repr(name if len(str(name)) <= 60 else f"{str(name)[:57]}...")
    raise UserError(f"template: {shown} is not known; known: {', '.join(known()) or 'none'}")


def current_name(name: str, target: Any = None) -> str:
    """What a template is called today that an earlier version called `name`.

    target: of the record that names it; a name of another level than it would be compiled for there
    now stays, and is not known.
    """
    family, _, algorithm = name.partition("/")
    algorithm = _EARLIER_NAMES.get(algorithm, algorithm)
    if family not in _EARLIER_LEVELS:
        return f"{family}/{algorithm}"
    if target is not None:
        template = Template("x86", algorithm)
        level = template.level(target) if "x86" in target.families else None
        if level == "avx512vnni" and algorithm in _WITHOUT_VNNI:
            level = "avx512bw"
        if family != level:
            return name
    return f"x86/{algorithm}"
