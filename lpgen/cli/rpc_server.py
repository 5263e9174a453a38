"""`lpgen rpc-server`: lends this machine to tuners."""

from __future__ import annotations

import click

from lpgen.cli import output


@click.command()
@click.option("--tracker", required=True, metavar="HOST:PORT", help="The tracker to report to.")
@click.option("--key", required=True, help="What devices of this kind are called, such as rpi4.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(1, 65435), default=9090, show_default=True)
def command(tracker: str, key: str, host: str, port: int) -> None:
    """Serve this machine's CPU to tuners, one at a time, until interrupted.

    It runs what it is sent: keep it where only those can reach it who may do anything here. A
    kernel that crashes or hangs ends its session; the server is back in a moment.
    """
    from lpgen.farm.serve import serve
    from lpgen.farm.trackers import Address

    serve(Address.parse(tracker), key, host, port, output.note)
