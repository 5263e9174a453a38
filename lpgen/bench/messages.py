"""What passes between the process of a comparison and its parent."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


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
    """What the process is about to do: prepare `way` of `peer`, or something of its own (no
    peer)."""

    peer: str
    way: str

    @property
    def words(self) -> str:
        """What the process is doing, for people."""
        return f"running {self.peer}'s {self.way}" if self.peer else self.way


class Failed(NamedTuple):
    """The kernel itself could not be compared: it is wrong, or cannot be called."""

    reason: str


class Present(NamedTuple):
    """The libraries there are with their versions, and why the others are not."""

    versions: dict[str, str]
    absent: dict[str, str]


class NetworkTask(NamedTuple):
    """Time the network of a library beside `names`, which run the ONNX file `model`; inputs: by
    name, {}: random ones; version: which one, of several sizes of inputs."""

    library: str
    model: str
    names: tuple[str, ...]
    rounds: int
    seed: int
    inputs: dict[str, np.ndarray]
    version: int = 0


class NetworkTimes(NamedTuple):
    """What came of it: library -> (best, median) microseconds, its version, how its outputs differ
    from ours ("" where they are equal); and why others did not run."""

    times: dict[str, tuple[float, float]]
    versions: dict[str, str]
    differences: dict[str, str]
    refused: dict[str, str]
