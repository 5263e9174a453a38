"""Which templates there are and which apply: found by path, schedules/<family>/<algorithm>.py.

The path is the registry. A module there offers `applies(op, target) -> str | None` (None: it
applies, else the reason why not), `space(op, target) -> Space`, `work(op, target, knobs) -> Counts`
(what a kernel does, for the cost model; else `default(op, target) -> dict`, the knobs of a first
guess) and `kernel(op, target, knobs) -> Kernel` (raises ScheduleRefused). Operators with scales of
groups of k are for modules that say `group_scales = True`, and those other than conv2d and dense
for modules that name them in `KINDS`. A module without `applies`, or whose name starts with an
underscore, is a helper that templates share.
"""

import importlib
import pkgutil
import re
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import lpgen.schedules
from lpgen.errors import UserError
from lpgen.space import Space

_NAME = re.compile(r"([a-z0-9_]+)/([a-z0-9_]+)")


@dataclass(frozen=True)
class Template:
    """One algorithm scheduled for one ISA family; `name` is e.g. "avx512vnni/dot"."""

    family: str
    algorithm: str

    @property
    def name(self) -> str:
        return f"{self.family}/{self.algorithm}"

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"{lpgen.schedules.__name__}.{self.family}.{self.algorithm}")

    def applies(self, op: Any, target: Any) -> str | None:
        """None where the template serves the operator on the target, else the reason why not."""
        if self.family not in target.families:
            return f"it is for {self.family}; {target.name} has {' '.join(target.families)}"
        kinds = getattr(self.module, "KINDS", ("conv2d", "dense"))
        if op.kind not in kinds:
            return f"it is for {' and '.join(kinds)}, not {op.kind}"
        if getattr(op, "group", 0) and not getattr(self.module, "group_scales", False):
            return f"scale=group{op.group}: its sums are those over all of k"
        return self.module.applies(op, target)

    def space(self, op: Any, target: Any) -> Space:
        """All its knobs for this operator on this target."""
        return self.module.space(op, target)

    def default(self, op: Any, target: Any) -> dict:
        """The knobs used where nothing was tuned; always a point of `space`: what the cost model
        likes best, or what the template itself says."""
        if not self.counted:
            return self.module.default(op, target)
        from lpgen import cost

        return cost.best_points(op, target, self)[0]

    @property
    def counted(self) -> bool:
        """Whether the template counts its work, which the cost model prices."""
        return hasattr(self.module, "work")

    def work(self, op: Any, target: Any, knobs: dict) -> dict[str, float]:
        """What a kernel with these knobs does, counted: instructions of each kind, bytes from each
        cache and the like, by the names in `lpgen.cost.features`."""
        return self.module.work(op, target, knobs)

    def kernel(self, op: Any, target: Any, knobs: dict) -> Any:
        """The scheduled Kernel. Raises ScheduleRefused where the schedule refuses these knobs, and
        TooLarge, which is one, where a buffer would leave int32."""
        from lpgen.build import sizes  # imports TVM, as the schedules do

        with sizes.scheduling(op):
            kernel = self.module.kernel(op, target, knobs)
        sizes.check(kernel, target)
        return kernel

    def __str__(self) -> str:
        return self.name


def _folders() -> frozenset[str]:
    """The folders of schedules; no other name becomes that of a module to import."""
    found = pkgutil.iter_modules(lpgen.schedules.__path__)
    return frozenset(folder.name for folder in found if folder.ispkg)


@cache
def algorithms_of(family: str) -> tuple[str, ...]:
    """The algorithms that have a schedule for this family, sorted (empty: no such folder)."""
    if family not in _folders():
        return ()
    package = importlib.import_module(f"{lpgen.schedules.__name__}.{family}")
    found = pkgutil.iter_modules(package.__path__)
    return tuple(sorted(m.name for m in found if not m.ispkg and not m.name.startswith("_")))


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
        answers[template] = template.applies(op, target)
        if answers[template] is None:
            serving[template.algorithm] = template.name
    return answers


def templates_for(op: Any, target: Any) -> list[Template]:
    """The templates that serve the operator on the target, best family first."""
    return [template for template, reason in explain(op, target).items() if reason is None]


def known() -> list[str]:
    """The names of all templates of all families, sorted."""
    templates = [
        Template(f, algorithm) for f in sorted(_folders()) for algorithm in algorithms_of(f)
    ]
    return [template.name for template in templates if hasattr(template.module, "applies")]


def get(name: str) -> Template:
    """The template of that name, e.g. "avx2/dot". Raises UserError listing what is known."""
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match and match[2] in algorithms_of(match[1]):
        template = Template(match[1], match[2])
        if hasattr(template.module, "applies"):
            return template
    shown = repr(name if len(str(name)) <= 60 else f"{str(name)[:57]}...")
    raise UserError(f"template: {shown} is not known; known: {', '.join(known()) or 'none'}")
