"""`lpgen targets`: the CPUs that kernels can be generated for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lpgen.cli import options, output

if TYPE_CHECKING:
    from lpgen.target import Target


@click.command()
@click.option("--detect", is_flag=True, help="Only this machine's CPU: features, caches, cores.")
@options.as_json
def command(detect: bool, as_json: bool) -> None:
    """List the CPUs that kernels can be generated for."""
    from lpgen import target

    if detect:
        found = target.detect()
        cpu = target.cpu_fingerprint()
        if as_json:
            output.print_json(found.describe() | {"cpu": cpu})
        else:
            _describe(found, str(cpu["brand"]))
        return
    if as_json:
        for row in target.known().values():
            output.print_json(row.describe())
        return
    rows = (
        (t.name, t.llvm_cpu, " ".join(t.families), _caches(t), _runs(t))
        for t in target.known().values()
    )
    names = ("target", "LLVM cpu", "template families", "L1d / L2 / L3", "runs here")
    output.print_table(names, rows)
    also = ", ".join(f"{alias} ({name})" for alias, name in target.ALIASES.items())
    output.note(f"other names: {also}")


def _describe(found: Target, brand: str) -> None:
    lines = {
        "target": f"{found.name} (LLVM cpu {found.llvm_cpu})",
        "CPU": brand,
        "cores": str(found.cores),
        "caches": f"{_caches(found)} (L1d / L2 / L3)",
        "families": " ".join(found.families),
        "features": " ".join(found.features),
    }
    for name, text in lines.items():
        click.echo(f"{name + ':':10}{text}")


def _caches(t: Target) -> str:
    return " / ".join(output.file_size(size) if size else "-" for size in (t.l1d, t.l2, t.l3))


def _runs(t: Target) -> str:
    from lpgen import target

    if not t.is_native:
        return f"under {target.ARCHITECTURES[t.architecture].emulator}, to check it"
    missing = t.missing_on(target.cpu_features())
    more = f" and {len(missing) - 2} more" if len(missing) > 2 else ""
    return f"no: lacks {', '.join(missing[:2])}{more}" if missing else "yes"
