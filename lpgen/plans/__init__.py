"""Plans: which layers of a model are quantized to how many bits.

A `Plan` is a TOML file that people read and edit; `groups_of` says which layers of a model share an
input and so a precision; `solve` chooses precisions by what they cost and what they spoil.
"""

from lpgen.plans.compiled import activations_of
from lpgen.plans.groups import (
    Layer,
    LayerGroup,
    bits_of,
    bytes_of,
    check_plan,
    groups_of,
    uniform,
)
from lpgen.plans.plan import METADATA, Group, Plan, plan_of, read_plan
from lpgen.plans.precision import FLOAT, Precision

__all__ = [
    "FLOAT",
    "METADATA",
    "Group",
    "Layer",
    "LayerGroup",
    "Plan",
    "Precision",
    "activations_of",
    "bits_of",
    "bytes_of",
    "check_plan",
    "groups_of",
    "plan_of",
    "read_plan",
    "uniform",
]
