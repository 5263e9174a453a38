"""`lpgen check`: are the kernels of a library exact?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import networks, options
from lpgen.cli.checked import print_kernels, served
from lpgen.cli.compile import read
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.network import Network
    from lpgen.runtime import Library

WRONG = 1


@click.command()
@click.argument("library", type=click.Path(path_type=Path), metavar="LIB.so")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="MODEL.onnx",
    help="What a network was compiled of: its steps are compared with the oracle's.",
)
@click.option(
    "--target",
    metavar="NAME",
    help="The CPU that an emulator (qemu-user) runs the library on [this one; of a library for "
    "another architecture what it was built for]; or one of several that it was built for.",
)
@options.versions
@options.dynamic
@options.plan
@options.device
@options.seed
@options.as_json
def command(
    library: Path,
    model: Path | None,
    target: str | None,
    versions: list[dict[str, tuple[int, ...]]],
    dynamic: str,
    plan: Path | None,
    rpc: str | None,
    key: str | None,
    seed: int,
    as_json: bool,
) -> int:
    """Compare every kernel of a library with the NumPy oracle, in a fresh process.

    Of a network each step is then compared with what its kernel makes of the same tensors, with the
    weights that the library holds, and whole calls with the steps one by one; with --model the
    steps are compared with the oracle of the model's, too, and the first that differs is named.

    For another CPU all of it runs on an emulator: an instruction that the CPU lacks is a failure.
    Of a library for several targets the kernels of all that the CPU runs are checked, and the
    others are named; with LPGEN_TARGET in the environment those of that one.

    With --rpc and --key the library is sent to a device (`lpgen rpc-server`), which nobody else has
    meanwhile: its kernels run there, and their results are compared here.

    Exits with status 1 when a result differs in any bit.
    """
    from lpgen import runtime
    from lpgen.build.check import check_library, emulated_target, lacking_on
    from lpgen.build.foreign import ForeignLibrary
    from lpgen.cli import remote
    from lpgen.runtime.files import asked_by_environment

    if (leases := remote.leases(rpc, key)) is not None:
        if model is not None or versions != [{}] or dynamic or plan:
            raise UserError("--model and what goes with it are for a library that this CPU runs")
        return WRONG if remote.check(library, leases, target, seed, as_json) else 0
    elsewhere = emulated_target(library, target)
    if elsewhere is not None:
        lacking, asked = lacking_on(library, elsewhere), asked_by_environment()
        one = asked and len(lacking) > 1
        several = [asked] if one else served(lacking, elsewhere.name)
        loaded = ForeignLibrary(library)
    else:
        loaded = runtime.load(library)
        several = _in_use(loaded, target)
    if model is None and (versions != [{}] or dynamic or plan):
        raise UserError("--shape, --dynamic and --plan are for --model MODEL.onnx")
    if model is not None and loaded.network is None:
        raise UserError(f"{library}: holds no network, and --model is for one")
    built: Sequence[Network | None] = [None] * len(loaded.versions)
    if model is not None:
        if len(versions) != len(built):
            raise UserError(f"{library}: has {len(built)} versions, --shape says {len(versions)}")
        built = [read(model, shapes, dynamic, plan) for shapes in versions]
    wrong = sum(
        print_kernels(check_library(library, seed, elsewhere, name), as_json, name)
        for name in several
    )
    for version, network in enumerate(built):
        how = (network, seed, as_json, version)
        wrong += sum(networks.check(loaded, *how, name, elsewhere) for name in several)
    return WRONG if wrong else 0


def _in_use(library: Library, target: str | None) -> list[str | None]:
    """The targets whose kernels this CPU runs, or the one that is named; None: the only one."""
    if len(library.targets) == 1:
        return [None]
    if target not in (None, "native"):
        return [target]
    return [library.target] if library.asked else served(library.lacking, "this CPU")
