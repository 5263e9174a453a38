"""The order of an operator's records: which of them fits, and which comes first."""

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lpgen import templates
from lpgen.errors import LpgenError, UserError
from lpgen.records.log import Log, RecordWarning, shipped
from lpgen.records.record import Record


def why_not(record: Record, op: Any, target: Any) -> str | None:
    """None where the record's template still offers its knobs for the operator, else the reason."""
    unknown = f"template {record.template} is not known"
    # Names of earlier versions that are still there when a line was read are of lesser levels.
    if templates.current_name(record.template) != record.template:
        return unknown
    try:
        template = templates.get(record.template)
    except UserError:
        return unknown
    try:
        reason = template.why_not(op, target)
        if reason is not None:
            return reason
        if record.knobs in template.space(op, target):
            return None
    except LpgenError as error:
        return str(error)
    return f"{record.template} has no such knobs {json.dumps(record.knobs)}"


def best(
    op: Any,
    target: Any,
    logs: Iterable[Log] = (),
    *,
    threads: int = 1,
    use_shipped: bool = True,
    lender: Any = None,
) -> Record | None:
    """The record to build an operator with for calls on `threads` threads, or None.

    lender: the target whose records are looked at, `target` itself by default; they have to fit
    `target` in any case.

    The first log that holds a winner decides: the given logs in their order, then the shipped
    ones; where none does, the first that holds any measured candidate (an interrupted run must
    not outdo a finished one). Winners on as many threads come before those on one, and these before
    those on others. Within a log, records of this CPU and these versions come first,
    then winners over more candidates, then the faster. Records that no longer fit their template
    are skipped, and a RecordWarning says how many of a log and why the first of them. Where winners
    were skipped and only other templates, which lost to theirs, remain, there is no best record.
    """
    skipped: dict[Path, list[str]] = {}
    chosen, winners = None, set()
    for log, record in ranked(op, lender or target, logs, threads=threads, use_shipped=use_shipped):
        reason = why_not(record, op, target)
        if reason is None:
            chosen = record if record.best or record.template in winners or not winners else None
            break
        winners |= {record.template} if record.best else set()
        skipped.setdefault(log.path, []).append(reason)
    # What another target's CPU has and this one has not is no reason to worry.
    for path, reasons in skipped.items() if lender in (None, target) else ():
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        text = f"{path}: {op.name}: skipped: {reasons[0]}{more}"
        warnings.warn(text, RecordWarning, stacklevel=2)
    return chosen


def ranked(
    op: Any, target: Any, logs: Iterable[Log] = (), *, threads: int = 1, use_shipped: bool = True
) -> list[tuple[Log, Record]]:
    """All records of candidates that worked, in the order in which `best` considers them."""
    found: list[tuple[tuple, Log, Record]] = []
    for place, log in enumerate([*logs, *(shipped() if use_shipped else ())]):
        for record in log.records():
            named = (record.workload, record.target) == (op.name, target.name)
            if named and record.failed is None:
                far = (threads, 1).index(record.threads) if record.threads in (threads, 1) else 2
                found.append(((not record.best, far, place, *_preference(record)), log, record))
    return [(log, record) for _, log, record in sorted(found, key=lambda entry: entry[0])]


def modelled(
    op: Any, target: Any, logs: Iterable[Log] = (), *, use_shipped: bool = True
) -> list[Record]:
    """Records of candidates that were only modelled and still fit, those of fewest cycles first."""
    found = [
        record
        for log in (*logs, *(shipped() if use_shipped else ()))
        for record in log.modelled()
        if (record.workload, record.target) == (op.name, target.name)
        and why_not(record, op, target) is None
    ]
    return sorted(found, key=lambda record: record.cycles)


def _preference(record: Record) -> tuple:
    # Times of different races are not comparable: the race that more candidates lost decides.
    return (not record.measured_here, -record.trials if record.best else 0, record.seconds)
