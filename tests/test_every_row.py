"""Every template on every row of the target table: what its space offers can be compiled, on any
x86-64 machine, whatever this CPU can run."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from strategies import (
    convs,
    denses,
    depthwise_convs,
    grouped_convs,
    layered_convs,
    layered_denses,
    texts,
)
from without_weights import operators_of

from lpgen import templates
from lpgen.build.compiler import compile_apart
from lpgen.ops import Conv2d, Dense, parse
from lpgen.ops.epilogue import Scale
from lpgen.target import known

products = denses() | convs() | st.builds(
    Dense, *map(st.integers, (1,) * 3, (9, 40, 70)), act=texts, weight=texts
)  # fmt: skip
few = st.sampled_from(["u1", "b1", "s2", "u2", "t2"])
small = st.builds(lambda op, act, weight: replace(op, act=act, weight=weight), products, few, few)
sized, tall = st.integers(1, 40), st.integers(3, 9)

OPERATORS = {
    "depthwise": depthwise_convs(),
    "grouped_conv": grouped_convs(),
    "rows": operators_of("rows"),
    "elementwise": operators_of("elementwise"),
    "bit_layers": layered_denses() | layered_convs(),
    "blockwise_dot": st.builds(
        lambda op, size: replace(op, epilogue=(Scale(f"group{size}"),)),
        products.filter(lambda op: op.kind == "dense"),
        st.integers(4, 40),
    ),
    "winograd": st.builds(
        Conv2d, h=tall, w=tall, ic=sized, oc=sized, kernel=st.just(3), act=few, weight=few
    ),
    "lane_pack": small,
    "lut_product": small,
    "bitserial": small,
    "lut_weight": st.builds(
        lambda rows, n, k, act, weight: Dense(32 + rows, n, k, act, weight),
        *[sized] * 3,
        st.sampled_from(["u1", "b1"]),
        st.sampled_from(["s2", "u3", "t2", "b4"]),
    ),
}


def served_rows(template, op):
    """The rows that the template serves the operator on, those with the same space together."""
    rows: dict[str, list] = {}
    for target in known().values():
        if template.why_not(op, target) is None:
            rows.setdefault(str(template.space(op, target).knobs), []).append(target)
    return list(rows.values())


SETTINGS = settings(
    max_examples=2,  # the first is the smallest operator that the template serves
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@pytest.mark.parametrize("name", templates.known())
@SETTINGS
@given(data=st.data())
def test_any_point_of_the_space_compiles(name, data):
    _compiles(name, data, most=1)


@pytest.mark.nightly
@pytest.mark.parametrize("name", templates.known())
@SETTINGS
@given(data=st.data())
def test_any_point_compiles_on_every_row(name, data):
    _compiles(name, data, most=len(known()))


def _compiles(name: str, data: st.DataObject, most: int) -> None:
    """A random point of a random operator on `most` of the rows that differ, drawn with it."""
    template = templates.get(name)
    op = data.draw(OPERATORS.get(template.algorithm, products))
    rows = served_rows(template, op)
    assume(rows)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    for number in rng.permutation(len(rows))[:most]:
        alike = rows[number]
        target = alike[int(rng.integers(len(alike)))]
        knobs = template.space(op, target).sample(rng)
        kernel = template.kernel(op, target, knobs)
        functions = {"kernel": kernel.function}
        functions |= {"pack": kernel.packer} if kernel.packer else {}
        compile_apart(f"{op}: {template} for {target}: {knobs}", functions, target)


def test_only_vectors_of_64_bytes_look_up_64_entries():
    op = parse("dense m=9 n=9 k=19 act=u4 weight=u4")
    for name, target in known().items():
        for template in templates.templates_of(target):
            if template.algorithm == "lut_sum":
                wide = template.family == "x86" and "avx512vbmi" in target.features
                assert (6 in template.space(op, target).knobs["inputs"]) == wide, (template, name)
