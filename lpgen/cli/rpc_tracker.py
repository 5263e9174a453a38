"""`lpgen rpc-tracker`: knows the devices of a farm, and gives them to who asks."""

from __future__ import annotations

import click

from lpgen.cli import output


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(1, 65535), default=9190, show_default=True)
def command(host: str, port: int) -> None:
    """Start a tracker: devices report to it, tuners ask it for devices.

    It is TVM's, and so are the servers, which run whatever they are sent: whoever reaches one of
    them can do anything there. It listens to this machine alone unless --host says otherwise;
    across a network use a tunnel (docs/farm.md).
    """
    from lpgen.farm.serve import track

    track(host, port, output.note)
