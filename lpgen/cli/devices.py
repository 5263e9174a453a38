"""`lpgen devices`: what a tracker knows, and how the devices are."""

from __future__ import annotations

import click

from lpgen.cli import options, output


@click.command()
@click.option("--rpc", required=True, metavar="HOST:PORT", help="The tracker.")
@options.as_json
def command(rpc: str, as_json: bool) -> None:
    """List the devices of a tracker by key, and ask each that is free what it is.

    Those that others hold are counted, and not waited for.
    """
    from dataclasses import asdict

    from lpgen.farm.trackers import Address, listed
    from lpgen.farm.visit import visited

    tracker = Address.parse(rpc)
    rows = []
    for entry in listed(tracker):
        found = visited(tracker, entry)
        if as_json:
            devices = [asdict(device) | {"machine": None} for device in found]
            for text, device in zip(devices, found, strict=True):
                text["health"] = device.health._asdict()
                text["machine"] = vars(device.machine) | {
                    "features": sorted(device.machine.features)
                }
            output.print_json(entry._asdict() | {"described": devices})
            continue
        head = (entry.key, str(len(entry.addresses)), str(entry.free), str(entry.pending))
        for device in found or [None]:
            rows.append((*head, *_words(device)))
            head = ("", "", "", "")
    if not as_json:
        names = ("key", "devices", "free", "waiting", "name", "arch", "CPU", "C", "MHz")
        output.print_table(names, rows)


def _words(device) -> tuple[str, ...]:
    if device is None:
        return ("", "", "all are in use", "", "")
    health = device.health
    heat = "" if health.celsius is None else f"{health.celsius:.0f}"
    clock = "" if health.megahertz is None else f"{health.megahertz:.0f}"
    heat += " slowed down" if health.throttled else ""
    return device.name, device.arch, device.machine.cpu, heat, clock
