"""What the tests of templates share: run a kernel and compare it with the oracle, bit for bit."""

from collections.abc import Iterator

import numpy as np
import pytest

from lpgen import templates
from lpgen.algorithms.kernel import Kernel
from lpgen.ops import Conv2d, Dense
from lpgen.ops.operator import Example
from lpgen.runtime.memory import aligned_copy
from lpgen.target import Target, cpu_features, known
from lpgen.templates import Template

_NAMED_ALIKE = ("generic", "sse4", "avx2", "avx512bw", "avx512vnni", "icelake")
TARGETS = {
    **{name: name for name in _NAMED_ALIKE},
    "avxvnni": "alderlake",
    "avxvnniint8": "arrowlake",
    "amx": "sapphirerapids",
    "zen4": "zen4",
}
"""The target that stands for each level; icelake: what counts bits and permutes bytes; zen4: what
adds beside products."""

_EMULATED = ("arm", "riscv")
"""Families of which an emulator runs all (test_emulated.py)."""

_WITHOUT_PRODUCTS = ("bitserial", "lut_product", "lut_sum", "lut_weight")
"""Algorithms that gain nothing from products of bytes, but from what icelake has."""


_CROSSED = ("dot", "winograd")
"""Algorithms that have products of sums (`Isa.crosses`)."""


def _levels() -> Iterator[tuple[str, str]]:
    for template in map(templates.get, templates.known()):
        if template.family in _EMULATED or not {*template.serves} & {*templates.PRODUCTS}:
            continue
        levels = [level for level in TARGETS if level not in ("generic", "amx")]
        products = ("avxvnni", "avxvnniint8", "avx512vnni")
        left_out = products if template.algorithm in _WITHOUT_PRODUCTS else ("icelake",)
        left_out += ("zen4",) if template.algorithm not in _CROSSED else ()
        levels = [level for level in levels if level not in left_out]
        for level in levels if template.family == "x86" else [template.family]:
            yield f"{level}/{template.algorithm}", TARGETS[level]


LEVELS = dict(_levels())
"""Every template of products at every level, such as "avx2/dot", with the target for it."""

WITHOUT_WEIGHTS = {
    "generic/elementwise": "generic",
    **{f"{level}/rows": level for level in ("generic", "sse4", "avx2", "avx512bw", "icelake")},
}
"""The templates of operators without weights at every level that differs for them."""

_TARGET_OF = LEVELS | WITHOUT_WEIGHTS


def template_of(name: str) -> tuple[Template, Target]:
    """The template and the target of a name in LEVELS or WITHOUT_WEIGHTS."""
    level, _, algorithm = name.partition("/")
    family = level if level in ("generic", "amx") else "x86"
    return Template(family, algorithm), Target.parse(_TARGET_OF[name])


def runs_here(name: str) -> bool:
    """Whether this CPU has all instructions of a name in LEVELS or WITHOUT_WEIGHTS."""
    return not Target.parse(_TARGET_OF[name]).missing_on(cpu_features())


def template(name: str) -> tuple[Template, Target]:
    """As `template_of`; skips the test where this CPU lacks an instruction of it."""
    chosen, target = template_of(name)
    missing = target.missing_on(cpu_features())
    if missing:
        pytest.skip(f"{name}: this CPU lacks {', '.join(missing)}")
    return chosen, target


def arguments(kernel: Kernel, example: Example, y: np.ndarray) -> list:
    """What a compiled kernel takes for an example, in its order; inputs at odd addresses."""
    import tvm_ffi

    signature = kernel.signature
    values = {
        name: aligned_copy(value, value.itemsize) if isinstance(value, np.ndarray) else value
        for name, value in example.inputs.items()
    }
    values[signature.output.name] = y
    if signature.packed:
        packed = kernel.layout.pack(example.weights, **example.parameters)
        values[signature.packed.name] = aligned_copy(packed)
    ordered = signature.ordered(values)
    return [tvm_ffi.from_dlpack(v) if isinstance(v, np.ndarray) else v for v in ordered]


def assert_exact(name: str, op: Dense | Conv2d, knobs: dict | None = None) -> None:
    """The kernel of template `name` equals the oracle on random and extreme inputs; knobs: the
    default ones if None."""
    chosen, target = template(name)
    assert_exact_on(chosen, target, op, chosen.default(op, target) if knobs is None else knobs)


def assert_exact_on(
    chosen: Template,
    target: Target,
    op: Dense | Conv2d,
    knobs: dict,
    extremes: bool = True,
    special: bool = False,
) -> None:
    """The kernel equals the oracle, with x and y at odd addresses; special: see `with_specials`."""
    from lpgen.build.lower import jit

    kernel = chosen.kernel(op, target, knobs)
    run = jit(kernel, target)
    rng = np.random.default_rng(0)
    for which in ("random", *op.EXTREMES) if extremes else ("random",):
        example = op.example(rng, which)
        if special:
            some = {name: with_specials(value, rng) for name, value in example.inputs.items()}
            example = example._replace(inputs=some)
        for given in map(example.with_layers, op.bit_layers.all) if op.layers else (example,):
            expected = op.reference(**given.given)
            y = aligned_copy(np.full(expected.shape, 99, expected.dtype), expected.itemsize)
            run(*arguments(kernel, given, y))
            assert y.dtype == expected.dtype
            what = f"{op} {chosen} {knobs} {given.inputs.get('layers', '')}"
            np.testing.assert_array_equal(bits(y), bits(expected), what)


def with_specials(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Floats with NaN and infinities of both signs in some rows and places, anything else as it
    is."""
    if array.dtype.kind != "f":
        return array
    value = rng.choice(np.float32([np.nan, -np.nan, np.inf, -np.inf]), array.shape)
    rows = rng.random((*array.shape[:-1], 1)) < 0.7
    return np.where(rows & (rng.random(array.shape) < 0.2), value, array)


def bits(array: np.ndarray) -> np.ndarray:
    """Floats as the integers of their bits, so that 0.0 and -0.0 differ; all NaN are one."""
    if array.dtype.kind != "f":
        return array
    return np.where(np.isnan(array), np.float32(np.nan), array).view(np.int32)


def rows_that_differ() -> dict[str, Target]:
    """Rows of the target table, one for each set of features."""
    return {t.name: t for t in {t.features: t for t in known().values()}.values()}
