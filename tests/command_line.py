"""What tests of the command line share: operators, and records of them."""

from lpgen.ops import parse
from lpgen.records import Log, Record
from lpgen.target import Target
from lpgen.templates import templates_for

DENSE = "dense m=4 n=32 k=64 act=u8 weight=s8 out=s32"
DEPTHWISE = "conv2d h=5 w=5 ic=8 oc=8 kernel=3 pad=1 groups=8 act=u4 weight=s4"


def record(log: Log, seconds: float | None, best: bool = False, **changes) -> Record:
    """A record of DENSE with the default knobs of its first template, in `log`."""
    op, native = parse(DENSE), Target.parse("native")
    template = templates_for(op, native)[0]
    failed = "refused" if seconds is None else None
    given = {
        "workload": op.name,
        "target": native.name,
        "template": template.name,
        "knobs": template.default(op, native),
        "seconds": seconds,
        "best": best,
        "failed": failed,
    }
    found = Record(**given | changes)
    log.append(found)
    return found
