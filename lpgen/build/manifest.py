"""Manifest of a library: its workloads, their arguments and variants, as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lpgen.build.choice import PACKED_HEADER, Exported, Variant, targets_of, versions
from lpgen.ops.signature import Argument

if TYPE_CHECKING:
    from lpgen.target import Target

SCHEMA = 5
"""Version of the manifest's form; the runtime refuses others."""


def manifest(kernels: Sequence[Exported]) -> dict[str, Any]:
    """What a library holds; arguments are in their order, targets and variants best first."""
    return {
        **{"schema": SCHEMA, **versions()},
        "targets": [*map(_target, targets_of(kernels))],
        "kernels": [*map(_kernel, kernels)],
    }


def _target(target: Target) -> dict[str, Any]:
    return {"name": target.name, "level": target.level, "features": list(target.features)}


def _kernel(kernel: Exported) -> dict[str, Any]:
    packed = map(_argument, kernel.packing.inputs if kernel.packing else ())
    return {
        "workload": kernel.op.name,
        "symbol": kernel.symbol,
        "ops": kernel.op.ops,
        "arguments": [*map(_argument, kernel.signature)],
        "weights": next(packed, None),
        "parameters": [*packed],
        "variants": [*map(_variant, kernel.variants)],
    }


def _argument(argument: Argument) -> dict[str, Any]:
    """Name, role, shape, dtype, alignment; which scalar is its first extent, if one is, and `shape`
    has the largest; the format and the limits of its values, if known."""
    entry = {
        **{"name": argument.name, "role": str(argument.role)},
        **{"shape": list(argument.shape), "dtype": argument.dtype},
        "alignment": argument.alignment,
    }
    if argument.rows:
        entry["rows"] = argument.rows
    if argument.format:
        entry["format"] = argument.format
    if limits := argument.limits:
        entry |= {"min": limits.low, "max": limits.high, "step": limits.step}
        entry |= {"zeros": limits.zeros} if limits.zeros else {}
        entry |= {"values": list(limits.book)} if limits.book else {}
    return entry


def _variant(variant: Variant) -> dict[str, Any]:
    choice, scratch = variant.choice, variant.scratch
    packed = choice.kernel.packed_bytes
    return {
        "target": choice.target.name,
        "level": choice.target.level,
        "template": choice.template,
        "knobs": dict(choice.knobs),
        "packed_bytes": PACKED_HEADER + packed if packed else 0,
        "identity": f"{variant.identity:016x}",
        "workspace_bytes": {"serial": scratch.serial, "per_thread": scratch.per_thread},
        "pieces": variant.pieces,
        "seconds": choice.seconds,
        "threads": choice.threads,
        "work": float(f"{choice.work:.3g}"),
        "origin": choice.origin,
    }
