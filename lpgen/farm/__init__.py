"""Devices over TVM's RPC: candidates are built here and measured there (extra `lpgen[farm]`).

A tracker knows devices by key; a server on each device serves one session at a time. Both are
TVM's own. A `Farm` holds a lease of some devices, each in a process of its own (`link`), which
workers of the tuner take turns to use:

    worker ──┐                  ┌─ link ─ session ═══ RPC ═══ server ─ session (device.py)
    worker ──┼── one address ───┤
    worker ──┘                  └─ link ─ session ═══ RPC ═══ server ─ session

Whatever a candidate does to its device, it costs that session: the server is back in a moment, the
link leases a device again, and the worker asks once more before the candidate is blamed.
"""

from lpgen.lazily import lazily

_PUBLIC = {
    "Address": "trackers",
    "Farm": "farm",
    "Listed": "trackers",
    "devices_of": "trackers",
    "listed": "trackers",
    "local_devices": "local",
}
"""Name -> the module that has it."""

__all__ = list(_PUBLIC)
__getattr__, __dir__ = lazily(__name__, _PUBLIC)
