"""What the commands say of a library that holds a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lpgen.cli import output
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.bench.network import NetworkMeasurement
    from lpgen.build.foreign import ForeignLibrary
    from lpgen.network import Network
    from lpgen.network.check import StepChecked
    from lpgen.onnx.partition import Partition
    from lpgen.runtime import Library, Step
    from lpgen.runtime.steps import NetworkInterface
    from lpgen.target import Target


KERNELS_ALONE = "their kernels alone"

_COLUMN = 40
"""Characters of names in tables."""


def holds_network(path: Path) -> bool:
    """Whether a library holds a network. Raises LibraryError for what is none."""
    from lpgen.build.foreign import described

    return described(path).network is not None


def show(path: Path, as_json: bool) -> None:
    """Print the steps of a network, its memory, and where its kernels' knobs come from."""
    from lpgen.build.foreign import described

    library = described(path)
    if as_json:
        for network in library.versions:
            for value in _json(library, network):
                output.print_json(value)
        return
    for network in library.versions:
        rows = [_row(i, step, library, network) for i, step in enumerate(network.steps)]
        names = (">step", "name", "kernel", "template", "knobs of", "writes", "at")
        output.print_table(names, rows)
        for line in lines(library, path.stat().st_size, network):
            output.note(f"{path}: {line}")


def lines(
    library: Library | ForeignLibrary, nbytes: int, network: NetworkInterface | None = None
) -> Iterable[str]:
    """What a network takes and gives, its steps and kernels, and its memory; network: which
    version."""
    network, size = network or library.network, output.file_size
    arena, constants = network.interface["arena"], network.constant_bytes
    yield f"takes {_tensors(network.inputs)}, gives {_tensors(network.outputs)}"
    kernels = output.count(len(library.workloads), "kernel")
    yield (
        f"{output.count(len(network.steps), 'step')} on {kernels} for "
        f"{', '.join(library.targets)}; {size(constants)} of constants, {size(nbytes)} in all"
    )
    if len(library.targets) > 1:
        yield in_use(library)
    if len(library.plans) > 1:
        yield f"plans {', '.join(library.plans)}; what is said of steps is of the first"
    bound = arena["lower_bound"]
    over = f"{arena['tensor_bytes'] / bound:.2f} of " if bound else ""
    yield (
        f"arena {size(arena['tensor_bytes'])}: {over}the {size(bound)} that are needed at once, "
        f"{size(arena['sum_bytes'])} are the sum of its tensors; with the workspace of one thread "
        f"{size(network.arena_bytes())}"
    )
    origins: dict[str, int] = {}
    for variant in _variants(library).values():
        origins[variant["origin"]] = origins.get(variant["origin"], 0) + 1
    yield f"knobs: {', '.join(f'{n} {name}' for name, n in origins.items())}"


def in_use(library: Library | ForeignLibrary) -> str:
    """Whose kernels of several targets are in use."""
    if library.target is None:
        return f"this CPU runs none of its targets; this is {library.targets[0]}"
    by = "asked for" if library.asked else "the best that this CPU runs"
    return f"in use: {library.target}, {by}"


def _json(library: Library | ForeignLibrary, network: NetworkInterface) -> Iterable[dict[str, Any]]:
    """One object for each step, and one for the network."""
    variants = _variants(library)
    for step in network.steps:
        variant = variants[step.workload]
        chosen = {key: variant[key] for key in ("target", "template", "knobs", "origin")}
        yield {
            "step": step.name,
            "workload": step.workload,
            "inputs": step.inputs,
            "output": step.output,
            "sources": step.sources,
            **chosen,
        }
    summary = {k: v for k, v in network.interface.items() if k not in ("steps", "programs")}
    own = {"target": network.target, "constant_bytes": network.constant_bytes}
    yield {"network": summary | own | {"arena_bytes": network.arena_bytes()}}


def _row(
    number: int, step: Step, library: Library | ForeignLibrary, network: NetworkInterface
) -> tuple:
    from lpgen.ops import parse

    variant, tensor = _variants(library)[step.workload], network.tensors[step.output]
    written = f"{tensor.dtype}{list(tensor.shape)}"
    label, place = parse(step.workload).label, f"{tensor.where} {tensor.at}"
    return (
        number,
        _short(step.name),
        label,
        variant["template"],
        variant["origin"],
        written,
        place,
    )


def _variants(library: Library | ForeignLibrary) -> dict[str, dict[str, Any]]:
    """The variant of each kernel of a network's library for the target in use."""
    target = library.network.target
    return {
        entry["workload"]: next(v for v in entry["variants"] if v["target"] == target)
        for entry in library.manifest["kernels"]
    }


def _short(name: str) -> str:
    """A name of ONNX, which may be a path, in a column of a table: its end."""
    return name if len(name) <= _COLUMN else f"...{name[3 - _COLUMN :]}"


def _tensors(tensors: Any) -> str:
    return ", ".join(map(str, tensors.values()))


def bench(
    path: Path,
    model: Path | None,
    names: list[str] | None,
    given: tuple[str, ...],
    settings: dict[str, int],
    as_json: bool,
) -> None:
    """Time a network on what is given (`lpgen.network.examples.read_given`), and beside the
    libraries `names`, if any, the ONNX file that they run."""
    if names is None and model is not None:
        raise UserError("--model is for --against NAMES, or for `lpgen check`")
    if names is not None and model is None:
        raise UserError(
            f"{path} is a network: --against takes --model MODEL.onnx, which others run"
        )
    from lpgen.bench.network import bench_network
    from lpgen.network.examples import read_inputs
    from lpgen.runtime import Library

    threads, versions = settings["threads"], Library(path).versions
    for version, network in enumerate(versions):
        inputs = read_inputs(path, given, version=version)
        measured = bench_network(path, threads=threads, inputs=inputs, version=version)
        if as_json:
            output.print_json(measured.describe())
        else:
            if len(versions) > 1:
                click.echo(f"{network.sizes}:")
            print_times(measured)
        if names is not None:
            how = settings | {"inputs": inputs, "version": version}
            _compare(path, model, names, how, as_json)


def print_times(measured: NetworkMeasurement) -> None:
    """A table of the steps, and a line about the whole."""
    rows = [
        (
            _short(step.step),
            step.label,
            step.template,
            step.origin,
            output.microseconds(step.us * 1e-6),
            output.percent(measured.share(step)),
            output.microseconds(step.us_alone * 1e-6),
        )
        for step in measured.steps
    ]
    names = ("step", "kernel", "template", "knobs of", ">us", ">share", ">us alone")
    output.print_table(names, rows)
    best, middle, kernels = (
        output.microseconds(us * 1e-6)
        for us in (measured.us_best, measured.us_median, measured.us_kernels)
    )
    click.echo(
        f"{measured.network} on {output.count(measured.threads, 'thread')}: {best} us "
        f"(median {middle}), {measured.overhead:.2f} times the {kernels} us of its steps alone"
    )


def _compare(
    path: Path, model: Path, names: list[str], settings: dict[str, Any], as_json: bool
) -> None:
    from lpgen.bench.comparison import OURS
    from lpgen.bench.network_contest import compare_network

    contest = compare_network(path, model, names, **settings)
    if as_json:
        output.print_json(contest._asdict())
        return
    ours = contest.times[OURS][0]
    rows = [
        (
            f"{name} {contest.versions.get(name, '')}".strip(),
            *(output.microseconds(us * 1e-6) for us in times),
            f"{times[0] / ours:.2f}",
            "" if name == OURS else contest.differences[name] or "equal outputs",
        )
        for name, times in contest.times.items()
    ]
    output.print_table(("library", ">us best", ">median", ">times ours", "outputs"), rows)
    for name, reason in contest.refused.items():
        click.echo(f"not run: {name}: {reason}")


def check(
    library: Library | ForeignLibrary,
    network: Network | None,
    seed: int,
    as_json: bool,
    version: int = 0,
    target: str | None = None,
    cpu: Target | None = None,
) -> int:
    """Check the steps of a version, of all plans, and print; the number of those that are wrong.
    network: that of the first plan; target: of several the one whose kernels run; cpu: the one that
    an emulator runs (of the first plan alone), None: this one."""
    from lpgen.network.check import check_network

    wrong = 0
    for plan in library.plans if cpu is None else ("",):
        more = {"target": target} if target else {}
        more |= {"plan": plan} if plan else {}
        if len(library.versions) > 1:
            more["version"] = library.versions[version].sizes
        of = "the oracle and their kernels alone" if network else KERNELS_ALONE
        results = check_network(library.path, seed, network, target, version, cpu, plan)
        wrong += print_steps(results, of, as_json, more)
        network = None
    return wrong


def print_steps(
    results: Iterable[StepChecked], of: str, as_json: bool, more: Mapping[str, Any]
) -> int:
    """Print the steps that are not as `of` as soon as they are there; how many. more: what else
    JSON says, and the target, the plan and the version of several, for texts."""
    from dataclasses import asdict

    wrong, count = [], 0
    front = "".join(f"{more[name]}: " for name in ("target", "plan", "version") if name in more)
    for result in results:
        count += 1
        wrong += [result] if result.failure else []
        if as_json:
            output.print_json(asdict(result) | more | {"exact": result.failure is None})
        elif result.failure:
            click.echo(f"{front}step {result.step} ({result.workload}): {result.failure}")
    if not as_json:
        click.echo(f"{front}{count - len(wrong)} of {output.count(count, 'step')} are as {of}")
        if wrong:
            click.echo(f"{front}the first that differs is step {wrong[0].step}")
    return len(wrong)


def show_parts(parts: Partition, library: Path, left: Path, as_json: bool) -> None:
    """What of a model became networks, and what stays."""
    if as_json:
        for name, network in parts.networks.items():
            output.print_json({"network": name, "steps": len(network.steps)})
        for node in parts.unserved:
            output.print_json({"stays": node.operator, "node": node.node, "reason": node.reason})
        return
    for name, network in parts.networks.items():
        given, made = (", ".join(map(str, t.values())) for t in (network.inputs, network.outputs))
        click.echo(f"{library}: {name} has {len(network.steps)} steps, takes {given}, gives {made}")
    rows = [(node.operator, node.reason, node.node) for node in parts.unserved]
    output.print_table(("stays", "reason", "node"), rows)
    click.echo(f"{left}: {len(parts.networks)} nodes of lpgen, {len(rows)} that stay")
