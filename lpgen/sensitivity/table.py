"""Table: what each variant of each group does to the outputs; a file of JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lpgen.errors import PlanError
from lpgen.plans.precision import Precision, nearest
from lpgen.sensitivity.variants import parts_of

LOSS = 0.01
"""Of the metric, relatively, that tolerated rates of bit errors are said for."""


class Result(NamedTuple):
    """divergence: of the outputs from the float model's; metric: more is better."""

    divergence: float
    metric: float


@dataclass(frozen=True)
class Row:
    """One group; weights: how many it has; results: by the text of the variant."""

    name: str
    nodes: tuple[str, ...]
    weights: int
    results: Mapping[str, Result]

    def loss(self, precision: Precision) -> float:
        """The divergence that a precision costs, added up of weights and activations. Raises
        PlanError where one of the two was not measured."""
        if precision.weight is None:
            return 0.0
        return sum(self._result(str(part)).divergence for part in parts_of(precision))

    def _result(self, variant: str) -> Result:
        if variant not in self.results:
            raise PlanError(
                f"{self.name}: {variant} was not measured; {nearest(variant, self.results)}"
            )
        return self.results[variant]

    def tolerated(self, reference: float) -> float | None:
        """The rate of bit errors in the stored weights at which the metric has lost LOSS of its
        value for the float model: between rates that were tried on a logarithmic scale. The largest
        one where none of them loses so much; None: no rate was tried, or the smallest loses more.
        """
        least = reference - LOSS * abs(reference)
        tried = sorted(
            (float(name.split()[0].removeprefix("flips=")), result.metric)
            for name, result in self.results.items()
            if name.startswith("flips=")
        )
        below: tuple[float, float] | None = None
        for rate, metric in tried:
            if not metric >= least:
                break
            below = rate, metric
        else:
            return below and below[0]
        if below is None:
            return None
        if not math.isfinite(metric):
            return below[0]
        part = (below[1] - least) / (below[1] - metric)
        return below[0] * (rate / below[0]) ** part


@dataclass(frozen=True)
class Table:
    """model: the file; metric: its name; reference: its value for the float model; calls: how many
    there were; rows: groups in the order of the model."""

    model: str
    metric: str
    reference: float
    calls: int
    rows: Sequence[Row] = field(default_factory=tuple)

    def row(self, name: str) -> Row:
        """The row of a group. Raises PlanError where there is none."""
        found = {row.name: row for row in self.rows}
        if name not in found:
            raise PlanError(f"the table has no group {name}; {nearest(name, found)}")
        return found[name]

    @property
    def variants(self) -> list[str]:
        """The texts of all variants in the order in which they come."""
        return list(dict.fromkeys(name for row in self.rows for name in row.results))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        rows = [
            asdict(row) | {"results": {k: r._asdict() for k, r in row.results.items()}}
            for row in self.rows
        ]
        return asdict(self) | {"rows": rows}

    def write(self, path: str | os.PathLike[str]) -> None:
        """The table in a file. Raises PlanError where it cannot be written."""
        try:
            Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise PlanError(f"table {path}: {error.strerror}") from None


def read_table(path: str | os.PathLike[str]) -> Table:
    """The table in a file. Raises PlanError where there is none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [
            Row(
                *(row["name"], tuple(row["nodes"]), row["weights"]),
                {name: Result(**result) for name, result in row["results"].items()},
            )
            for row in content.pop("rows")
        ]
        return Table(**content, rows=tuple(rows))
    except OSError as error:
        raise PlanError(f"table {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise PlanError(f"{path} is no table of lpgen sensitivity") from None
