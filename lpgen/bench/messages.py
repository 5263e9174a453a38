"""What passes between the process of a comparison and its parent."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Task:
    """Compare the kernel of `workload` in the library at `path`.

    small: a library that has the smallest operator of the same kind; rounds: of timing; skipped:
    (peer, way) of what killed an earlier process, with the reason.
    """

    path: str
    workload: str
    small: str
    rounds: int
    seed: int
    skipped: dict[tuple[str, str], str]


class Phase(NamedTuple):
    """What the process is about to do: prepare `way` of `peer`, or time them all (no peer)."""

    peer: str
    way: str


class Failed(NamedTuple):
    """The kernel itself could not be compared: it is wrong, or cannot be called."""

    reason: str


class Present(NamedTuple):
    """The libraries there are with their versions, and why the others are not."""

    versions: dict[str, str]
    absent: dict[str, str]
