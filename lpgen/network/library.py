"""Building a network's library: a kernel for each operator, and the program of its steps."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from lpgen import build as kernels
from lpgen.build import Choice
from lpgen.build.choice import identifier
from lpgen.build.objects import Objects
from lpgen.build.part import Builder
from lpgen.errors import NetworkError
from lpgen.network.network import Network
from lpgen.network.ort import Nodes
from lpgen.network.planes import Chooser, with_planes
from lpgen.network.plans import Plans, check_alike
from lpgen.network.program import Program, suffixes
from lpgen.network.rounding import rounded_for
from lpgen.network.shared import SharedWeights
from lpgen.ops import Operator
from lpgen.records import Log
from lpgen.records.choose import choose
from lpgen.records.cold import with_cold_weights
from lpgen.target import Target

RESERVED = ("pool", "kernel", "network", "ffi", "lpgen")
"""What functions inside of a library begin with."""


def build(
    network: Network | Sequence[Network],
    target: Target | str | Sequence[Target],
    out: str | os.PathLike[str],
    logs: Iterable[Log | str | os.PathLike] = (),
    *,
    name: str | None = None,
    threads: int = 1,
    weights_beside: bool = False,
    exposed: Collection[str] | None = None,
    chooser: Chooser | None = None,
    objects: Objects | None = None,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Path:
    """Write a library that runs `network` to `out`, and its header beside it (.h).

    network: one, or its versions for several sizes of inputs, which share what they can: kernels of
    equal operators, and weights where kernels of different ones store them in the same way.
    target: one, or several, best first (`lpgen.target.several`): it then has the kernels and the
    packed weights of each, and runs those of the first that the CPU serves.
    logs, threads: as `lpgen.choose` takes them, for the kernel of each operator; equal ones
    share it. chooser: chooses in its place; objects: as `lpgen.build.build` takes them. name: what
    its C functions begin with [the name of the file]. weights_beside: its constants are written to
    a file of their own, the name ending in .weights, and not into the library; of several targets
    to one for each, .TARGET.weights. exposed: where that file is kept in memory that flips bits,
    the names of nodes whose codes of weights may have errors; all else gets check bytes, in a file
    whose name ends in .weights.checks.
    on_progress: is told how many kernels are compiled, and of how many.
    The files appear complete or not at all. Raises as `lpgen.build.build` and `choose` do;
    NetworkError for a name that C does not take, and for weights that cannot be packed.
    """
    name = default_name(out, name)
    path = kernels.check_output(out)
    targets = _targets(target)
    for suffix in suffixes(targets).values():
        if weights_beside and path.with_suffix(suffix).is_dir():
            raise NetworkError(
                f"{path.with_suffix(suffix)} is a folder, and weights are written there"
            )
    if exposed is not None and not weights_beside:
        raise NetworkError("check bytes are for weights beside the library: in it all are checked")
    choosers = [chooser] if chooser else _choosers(targets, logs, threads)
    given = [network] if isinstance(network, Network) else network
    networks = _for_targets(given, targets, choosers)
    program = Program.of(networks, name, weights_beside, exposed)
    if len(networks) > 1:
        choosers = [SharedWeights(networks, chosen) for chosen in choosers]
    return _build(networks, program, choosers, out, on_progress, objects)


def build_plans(
    plans: Mapping[str, Network | Sequence[Network]],
    target: Target | str | Sequence[Target],
    out: str | os.PathLike[str],
    logs: Iterable[Log | str | os.PathLike] = (),
    *,
    name: str | None = None,
    threads: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Path:
    """Write a library that runs one model in several ways, by the names of these plans, the best
    one first: `lpgen.runtime.Library.plans`, and NAME_PLAN_run in C.

    The other arguments and errors are those of `build`; NetworkError, too, for plans whose inputs
    or outputs differ.
    """
    targets = _targets(target)
    choosers = _choosers(targets, logs, threads)
    given = {p: [n] if isinstance(n, Network) else n for p, n in plans.items()}
    versions = {p: _for_targets(of_plan, targets, choosers) for p, of_plan in given.items()}
    check_alike(versions)
    name, path = default_name(out, name), kernels.check_output(out)
    programs = {p: Program.of(n, default_name(out, f"{name}_{p}")) for p, n in versions.items()}
    networks = [network for of_plan in versions.values() for network in of_plan]
    if len(networks) > len(plans):
        choosers = [SharedWeights(networks, chosen) for chosen in choosers]
    return _build(networks, Plans(programs), choosers, path, on_progress)


def build_nodes(
    networks: Mapping[str, Network],
    target: Target | str | Sequence[Target],
    out: str | os.PathLike[str],
    logs: Iterable[Log | str | os.PathLike] = (),
    *,
    threads: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Path:
    """Write a custom-op library of ONNX Runtime whose nodes are these networks, by type.

    The other arguments and errors are those of `build`; `lpgen.onnx.partition` gives networks, and
    the model with these nodes.
    """
    targets = _targets(target)
    choosers = _choosers(targets, logs, threads)
    built = _for_targets(networks.values(), targets, choosers)
    names = [default_name(out, name) for name in networks]
    programs = [Program.of([n], name) for n, name in zip(built, names, strict=True)]
    return _build(built, Nodes(programs), choosers, out, on_progress)


def _for_targets(
    networks: Iterable[Network], targets: Sequence[Target], choosers: Sequence[Chooser]
) -> list[Network]:
    """Networks in the form that suits the targets and the kernels that are chosen for them."""
    rounded = (rounded_for(network, targets) for network in networks)
    return [with_planes(network, choosers) for network in rounded]


def _targets(target: Target | str | Sequence[Target]) -> Sequence[Target]:
    if isinstance(target, str):
        return [Target.parse(target)]
    return [target] if isinstance(target, Target) else target


def _choosers(
    targets: Iterable[Target], logs: Iterable[Log | str | os.PathLike], threads: int
) -> list[Chooser]:
    logs = list(logs)

    def chooser(target: Target) -> Chooser:
        @cache
        def chosen(op: Operator) -> Choice:
            return with_cold_weights(choose(op, target, logs, threads=threads), logs)

        return chosen

    return [chooser(target) for target in targets]


def _build(
    networks: Iterable[Network],
    part: Builder,
    choosers: Sequence[Chooser],
    out: str | os.PathLike[str],
    on_progress: Callable[[int, int], None],
    objects: Objects | None = None,
) -> Path:
    """Kernels for each operator of the networks, and what is built on them."""
    operators = list(dict.fromkeys(step.op for network in networks for step in network.steps))
    if not operators:
        raise NetworkError("the network has no steps")
    count = len(operators) * len(choosers)
    on_progress(0, count)
    choices = _ahead(choosers, operators)
    with contextlib.closing(choices):
        return kernels.build(choices, out, part, lambda done: on_progress(done, count), objects)


def _ahead(choosers: Sequence[Chooser], operators: Iterable[Operator]) -> Iterator[Choice]:
    """The choices for each operator, in order: another thread works on the next ones while one is
    compiled."""
    with ThreadPoolExecutor(1) as pool:
        futures = [pool.submit(chooser, op) for op in operators for chooser in choosers]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def default_name(out: str | os.PathLike[str], name: str | None = None) -> str:
    """What the C functions of the library `out` begin with: `name`, or what the file is called.

    Raises NetworkError for what C does not take as a name, and for what is taken.
    """
    name = identifier(Path(out).stem) if name is None else name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise NetworkError(f"name {name!r} is no C identifier of letters, digits and _")
    if name in RESERVED:
        raise NetworkError(f"name {name!r} is taken inside of the library; choose another one")
    return name
