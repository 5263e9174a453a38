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

from lpgen.farm.farm import Farm
from lpgen.farm.trackers import Address, Listed, devices_of, listed

__all__ = ["Address", "Farm", "Listed", "devices_of", "listed"]
