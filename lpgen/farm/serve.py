"""The server on a device, which is started again when it ends, and the tracker: both are TVM's."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from lpgen.errors import TuneError
from lpgen.farm.trackers import Address

AGAIN = 1.0
"""Seconds before what ended is started again."""

_ALIVE = 0.5


def serve(tracker: Address, key: str, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve sessions for a tracker until this process is ended; a server that ends, as one does
    whose session was killed by a kernel, is started again."""
    _check("cloudpickle", extra="device")
    os.environ["TVM_USE_RUNTIME_LIB"] = "1"  # no compiler, which is large, and may be left out
    from tvm import rpc

    restarts = 0
    while True:
        server = _started(
            lambda: rpc.Server(
                host,
                port,
                port + 100,
                tracker_addr=tuple(tracker),
                key=key,
                silent=True,
                server_init_callback=prepare,
            ),
            host,
            port,
        )
        if not restarts:
            say(f"device of key {key} at {host}:{server.port}, for the tracker {tracker}")
        try:
            server.proc.join()
        finally:
            server.terminate()
        restarts += 1
        say(f"a session ended the server; it starts again ({restarts})")
        time.sleep(AGAIN)


def prepare() -> None:
    """In the server's process: the function that sessions call, and an end to the process when
    the thread that listens has ended, which TVM leaves idle."""
    from lpgen.farm import device
    from lpgen.supervise import die_with_parent

    die_with_parent()
    device.register()
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    from tvm.rpc.server import PopenRPCServerState

    while True:
        time.sleep(_ALIVE)
        state = PopenRPCServerState.current
        if state is not None and not state.thread.is_alive():
            os.kill(os.getpid(), signal.SIGKILL)


def track(host: str, port: int, say: Callable[[str], None]) -> None:
    """Be a tracker until this process is ended; TVM's own way has another one, which stays when
    this one is killed."""
    _check("tornado", "cloudpickle")
    from tvm.rpc.base import get_addr_family
    from tvm.rpc.tracker import TrackerServerHandler, logger

    def listening() -> socket.socket:
        return socket.create_server((host, port), family=get_addr_family((host, port)))

    logger.setLevel(logging.WARNING)
    with _started(listening, host, port) as accepting:
        asyncio.set_event_loop(asyncio.new_event_loop())
        tracker = TrackerServerHandler(accepting, secrets.token_hex())
        say(f"tracker at {host}:{port}")
        tracker.run()


def _check(*modules: str, extra: str = "farm") -> None:
    """Raise TuneError unless what TVM's servers need is installed."""
    if missing := [name for name in modules if find_spec(name) is None]:
        raise TuneError(f"{' and '.join(missing)} missing: pip install 'lpgen[{extra}]'")


def _started(start: Callable[[], Any], host: str, port: int) -> Any:
    """What a function starts. Raises TuneError where the port cannot be had."""
    try:
        return start()
    except Exception as error:  # TVM's worker passes on what its process said
        reason = " ".join(str(error).split())[-160:]
        raise TuneError(f"{host}:{port} cannot be listened at: {reason}") from None
