"""A search over made-up templates whose times follow from their knobs."""

import numpy as np
from fake_templates import Tiles

from lpgen.ops import parse
from lpgen.space import Space
from lpgen.target import Target
from lpgen.tune.messages import Candidate
from lpgen.tune.search import Search

OP = parse("dense m=16 n=32 k=64 act=u8 weight=s8")
OTHER = parse("dense m=64 n=32 k=128 act=u8 weight=s8")
TARGET = Target.parse("avx2")


class Big(Tiles):
    """1440 points with one best, a ridge around it, and a knob that matters not at all."""

    def space(self, op, target):
        knobs = {
            "rows": (1, 2, 3, 4, 6, 8, 12, 16, 24, 28),
            "vectors": (1, 2, 3, 4, 6, 8),
            "unroll": (1, 2, 4, 8),
            "order": ("mn", "nm", "km"),
            "copy": (False, True),
        }
        return Space(knobs, lambda p: p["rows"] * p["vectors"] <= 28)

    def default(self, op, target):
        return {"rows": 1, "vectors": 1, "unroll": 1, "order": "mn", "copy": False}


BIG = Big()


def seconds_of(knobs) -> float:
    """1e-4 s at rows=6 vectors=4 unroll=2 order=nm."""
    slow = 1 + abs(np.log2(knobs["rows"] * knobs["vectors"] / 24)) + abs(knobs["rows"] - 6) / 20
    slow += 0.2 * abs(np.log2(knobs["unroll"] / 2)) + 0.5 * (knobs["order"] != "nm")
    return 1e-4 * slow


def search(templates=(BIG,), trials=64, seed=0, **options) -> Search:
    rng = np.random.default_rng(seed)
    return Search(OP, TARGET, templates, trials=trials, rng=rng, **options)


def run(searching: Search, trials: int, measure=seconds_of) -> list[Candidate]:
    done = []
    while len(done) < trials and (candidate := searching.propose()) is not None:
        searching.tell(candidate, measure(candidate.knobs))
        done.append(candidate)
    return done
