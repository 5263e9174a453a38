"""Several targets of one library, which holds every kernel for each of them."""

from collections.abc import Iterable

from lpgen.errors import TargetError
from lpgen.target import Target, known


def several(names: Iterable[str]) -> list[Target]:
    """The targets of these names, best first: that order in which a library looks for one that a
    CPU runs.

    Raises TargetError for an unknown name, the same twice, targets of several architectures, and
    for one that no CPU would take, as another is before it that all such CPUs run.
    """
    found: dict[str, Target] = {}
    for name in names:
        target = Target.parse(name.strip())
        if target.name in found:
            raise TargetError(f"target {target.name} is there twice")
        found[target.name] = target
    place = {name: number for number, name in enumerate(known())}
    ordered = sorted(found.values(), key=lambda target: -place[target.name])
    for number, target in enumerate(ordered):
        first = ordered[0]
        if target.architecture != first.architecture:
            raise TargetError(
                f"targets {first} and {target}: a library is for one architecture, not for "
                f"{first.architecture} and {target.architecture}"
            )
        for better in ordered[:number]:
            if not better.missing_on(frozenset(target.features)):
                raise TargetError(
                    f"targets {better} and {target}: every CPU that runs the second takes the first"
                )
    return ordered
