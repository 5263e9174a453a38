"""Plan: what each group of layers of a model is quantized to; a TOML file that people can edit."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpgen.errors import PlanError
from lpgen.plans.precision import FLOAT, KEYS, Precision, nearest

if TYPE_CHECKING:
    import onnx

METADATA = "lpgen.plan"
"""The key of `metadata_props` under which a quantized model of ONNX holds its plan."""

MOST_ERRORS = 0.01
"""The largest rate of bit errors: check bytes correct one of 72 bits."""

_TEXTS = ("model", "metric", "wish")
_FIGURES = ("predicted", "measured")
_GROUP = ("name", "nodes", "protect", *KEYS)


@dataclass(frozen=True)
class Group:
    """Layers that share an input and have one precision; name: what tables call it; nodes: of the
    model, by their names; protect: whether the stored codes of their weights are kept with check
    bytes, where memory flips bits (`Plan.bit_errors`)."""

    name: str
    nodes: tuple[str, ...]
    precision: Precision
    protect: bool = False


@dataclass(frozen=True)
class Plan:
    """Precisions of groups of layers; what no group names stays float.

    model: the file that it was made for; metric, wish: what was asked for, in words; predicted,
    measured: figures by name (milliseconds, metric, bytes, weight_bits); bit_errors: the rate at
    which bits of stored weights flip, 0: never. Raises PlanError for a node that two groups name,
    and for two groups of one name.
    """

    groups: tuple[Group, ...]
    model: str = ""
    metric: str = ""
    wish: str = ""
    predicted: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    bit_errors: float = 0.0

    def __post_init__(self) -> None:
        owner: dict[str, str] = {}
        names: set[str] = set()
        for group in self.groups:
            if group.name in names:
                raise PlanError(f"two groups are called {group.name}")
            names.add(group.name)
            for node in group.nodes:
                if node in owner:
                    raise PlanError(f"node {node} is named twice: in {owner[node]}, {group.name}")
                owner[node] = group.name

    @property
    def exposed(self) -> list[str]:
        """The nodes with weights whose codes are not protected."""
        groups = (g for g in self.groups if g.precision.weight is not None and not g.protect)
        return [node for group in groups for node in group.nodes]

    @property
    def precisions(self) -> dict[str, Precision]:
        """The precision of each node by its name."""
        return {node: group.precision for group in self.groups for node in group.nodes}

    def precision(self, node: str) -> Precision:
        """That of a node: float where no group names it."""
        return self.precisions.get(node, FLOAT)

    def check_nodes(self, known: Sequence[str]) -> None:
        """Raise PlanError for a node that is none of those that can be quantized, with the nearest
        one."""
        for group in self.groups:
            for node in group.nodes:
                if node not in known:
                    raise PlanError(
                        f"group {group.name}: the model has no layer {node} to quantize; "
                        f"{nearest(node, known)}"
                    )

    def to_toml(self) -> str:
        """The text of the plan's file."""
        return "\n".join(_lines(self)) + "\n"

    @classmethod
    def from_toml(cls, text: str, where: str = "plan") -> Plan:
        """The plan of a text; where: what messages call it. Raises PlanError."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise PlanError(f"{where} is no TOML: {error}") from None
        try:
            return _plan(table)
        except PlanError as error:
            raise PlanError(f"{where}: {error}") from None

    def write(self, path: str | os.PathLike[str]) -> None:
        """The plan as a file. Raises PlanError where it cannot be written."""
        try:
            Path(path).write_text(self.to_toml(), encoding="utf-8")
        except OSError as error:
            raise PlanError(f"plan {path}: {error.strerror}") from None


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan in a file. Raises PlanError where there is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise PlanError(f"plan {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PlanError(f"plan {path} is no text of UTF-8") from None
    return Plan.from_toml(text, f"plan {path}")


def plan_of(model: onnx.ModelProto) -> Plan | None:
    """The plan that a quantized model holds, if it holds any."""
    texts = {entry.key: entry.value for entry in model.metadata_props}
    return Plan.from_toml(texts[METADATA], "the model's plan") if METADATA in texts else None


def _plan(table: Mapping[str, Any]) -> Plan:
    known = (*_TEXTS, "bit_errors", *_FIGURES, "group")
    for key in table:
        if key not in known:
            raise PlanError(f"key {key!r} is unknown; {nearest(key, known)}")
    texts = {key: table.get(key, "") for key in _TEXTS}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise PlanError(f"{key} is {value!r}, expected a text")
    groups = table.get("group", [])
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise PlanError("group is no list of tables: [[group]] begins each")
    figures = {key: _figures(key, table.get(key, {})) for key in _FIGURES}
    rate = table.get("bit_errors", 0.0)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= MOST_ERRORS:
        raise PlanError(f"bit_errors is {rate!r}, expected a rate from 0 to {MOST_ERRORS}")
    made = tuple(_group(i, group) for i, group in enumerate(groups))
    return Plan(made, **texts, **figures, bit_errors=float(rate))


def _figures(key: str, table: Any) -> dict[str, float]:
    if not isinstance(table, dict):
        raise PlanError(f"{key} is {table!r}, expected a table of numbers")
    for name, value in table.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise PlanError(f"{key}.{name} is {value!r}, expected a number")
    return table


def _group(place: int, table: Mapping[str, Any]) -> Group:
    name = table.get("name", f"group {place}")
    if not isinstance(name, str):
        raise PlanError(f"name is {name!r}, expected a text")
    for key in table:
        if key not in _GROUP:
            raise PlanError(f"{name}: key {key!r} is unknown; {nearest(key, _GROUP)}")
    nodes = table.get("nodes", [name])
    if not isinstance(nodes, list) or not nodes or not all(isinstance(n, str) for n in nodes):
        raise PlanError(f"{name}: nodes is {nodes!r}, expected names of layers")
    try:
        precision = Precision.from_values({k: v for k, v in table.items() if k in KEYS})
    except PlanError as error:
        raise PlanError(f"{name}: {error}") from None
    protect = table.get("protect", False)
    if not isinstance(protect, bool):
        raise PlanError(f"{name}: protect is {protect!r}, expected true or false")
    return Group(name, tuple(nodes), precision, protect)


def _lines(plan: Plan) -> Iterator[str]:
    yield "# What each group of layers is quantized to. What stands nowhere stays float."
    for key in _TEXTS:
        if value := getattr(plan, key):
            yield f"{key} = {_text(value)}"
    if plan.bit_errors:
        yield f"bit_errors = {_number(plan.bit_errors)}"
    for key in _FIGURES:
        if figures := getattr(plan, key):
            yield ""
            yield f"[{key}]"
            yield from (f"{name} = {_number(value)}" for name, value in figures.items())
    for group in plan.groups:
        yield ""
        yield "[[group]]"
        yield f"name = {_text(group.name)}"
        if len(group.nodes) == 1:
            yield f"nodes = [{_text(group.nodes[0])}]"
        else:
            yield "nodes = ["
            yield from (f"    {_text(node)}," for node in group.nodes)
            yield "]"
        for key, value in group.precision.values().items():
            yield f"{key} = {_text(value) if isinstance(value, str) else value}"
        if group.protect:
            yield "protect = true"


def _text(value: str) -> str:
    """A basic string of TOML: that of JSON, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _number(value: float) -> str:
    """A number of TOML, of six digits."""
    return str(value) if isinstance(value, int) else repr(float(f"{value:.6g}"))
