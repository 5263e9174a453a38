"""What `lpgen check` and `lpgen bench` do with --rpc: on a device, which they have alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lpgen.cli import networks, output
from lpgen.cli.checked import print_kernels, served
from lpgen.cli.measurements import build_for, counts_of, of_sizes, print_measurements
from lpgen.errors import UserError

if TYPE_CHECKING:
    from lpgen.farm.lease import Lease
    from lpgen.farm.libraries import Leases, RemoteLibrary
    from lpgen.ops import Operator


def leases(rpc: str | None, key: str | None) -> Leases | None:
    """What gives leases of the device that --rpc and --key name; None: neither is there."""
    if (rpc is None) != (key is None):
        raise UserError("--rpc and --key go together: where the tracker is, and which device")
    if rpc is None:
        return None
    from lpgen.farm.lease import leased
    from lpgen.farm.trackers import Address

    return partial(leased, Address.parse(rpc), key, output.note)


def named(lease: Lease) -> dict[str, str]:
    """What JSON says of the device."""
    return {"device": lease.device.name, "cpu": lease.device.machine.cpu}


def words(lease: Lease) -> str:
    """What tables say of the device."""
    device = lease.device
    return f"device {device.name} of key {lease.key}: {device.machine.cpu}, {device.arch}"


def check(library: Path, leases: Leases, target: str | None, seed: int, as_json: bool) -> int:
    """Check kernels and network and print; the number of those that are wrong."""
    from lpgen.farm.libraries import RemoteLibrary, check_library, check_network

    with leases() as lease:
        there = RemoteLibrary(lease, library, target)
        about, cpu = named(lease), f"device {lease.device.name}"
        if not as_json:
            click.echo(words(lease))
    several = [target] if target else served(there.lacking, cpu)
    wrong = 0
    for name in several:
        wrong += print_kernels(check_library(leases, library, seed, name), as_json, name, about)
        if there.steps:
            with leases() as lease:
                more = about | ({"target": name} if name else {})
                steps = check_network(lease, library, seed, name)
                wrong += networks.print_steps(steps, networks.KERNELS_ALONE, as_json, more)
    return wrong


@dataclass(frozen=True)
class Bench:
    """What is asked of the timing: threads of each call, weights warm or not, numbers of rows (as
    text), inputs of a network (as texts), and how it is printed."""

    leases: Leases
    threads: int
    warm: bool
    rows: str | None
    given: tuple[str, ...]
    as_json: bool

    def library(self, path: Path) -> None:
        """Time the kernels of a library, or its network."""
        from lpgen.farm.libraries import RemoteLibrary

        with self.leases() as lease:
            there = RemoteLibrary(lease, path, None)
            if there.steps:
                self._network(there)
            else:
                self._kernels(there, {name: "" for name in there.variants})

    def operators(
        self, operators: Mapping[Operator, str], target: str, log_path: Path | None
    ) -> None:
        """Build kernels here, and time them."""
        from lpgen.build.scratch import scratch_folder
        from lpgen.farm.libraries import RemoteLibrary, target_of

        with self.leases() as lease, scratch_folder() as folder:
            path = folder / "bench.so"
            name = target_of(lease) if target == "native" else target
            build_for(operators, name, log_path, self.threads, path)
            labels = {op.name: label for op, label in operators.items()}
            self._kernels(RemoteLibrary(lease, path, None), labels)

    def _kernels(self, there: RemoteLibrary, labels: Mapping[str, str]) -> None:
        from lpgen.bench.measure import sizes
        from lpgen.farm.libraries import bench_kernel
        from lpgen.ops import parse

        if self.given:
            raise UserError("--inputs are for a library that holds a network")
        counts = counts_of(self.rows, labels)
        found = (
            measurement
            for name in there.variants
            for op in sizes(parse(name), counts)
            for measurement in bench_kernel(there, name, op, self.threads, self.warm)
        )
        if self.as_json:
            for measurement in found:
                output.print_json(measurement.describe() | named(there.lease))
            return
        print_measurements(found, of_sizes(labels, counts))
        click.echo(words(there.lease))

    def _network(self, there: RemoteLibrary) -> None:
        from lpgen.farm.libraries import bench_network
        from lpgen.network.examples import read_given

        if self.warm or self.rows:
            raise UserError("--warm and --rows are for kernels, not for a network")
        measured = bench_network(there, self.threads, read_given(self.given))
        if self.as_json:
            output.print_json(measured.describe() | named(there.lease))
            return
        networks.print_times(measured)
        click.echo(words(there.lease))
