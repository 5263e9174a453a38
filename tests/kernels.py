"""What the tests of templates share: run a kernel and compare it with the oracle, bit for bit."""

from collections.abc import Iterator

import numpy as np
import pytest

from lpgen.ops import Conv2d, Dense
from lpgen.target import Target, cpu_features
from lpgen.templates import Template

# Every template, with the target for whose CPU level it is compiled.
LEVELS = {
    "generic/generic": "generic",
    "sse4/dot": "sse4",
    "avx2/dot": "avx2",
    "avx512bw/dot": "avx512bw",
    "avx512vnni/dot": "avx512vnni",
    "sse4/lut_sum": "sse4",
    "avx2/lut_sum": "avx2",
    "avx512bw/lut_sum": "avx512bw",
    "sse4/lut_weight": "sse4",
    "avx2/lut_weight": "avx2",
    "avx512bw/lut_weight": "avx512bw",
    "amx/mma": "sapphirerapids",
    "sse4/depthwise": "sse4",
    "avx2/depthwise": "avx2",
    "avx512bw/depthwise": "avx512bw",
    "avx512vnni/depthwise": "avx512vnni",
    "sse4/grouped": "sse4",
    "avx2/grouped": "avx2",
    "avx512bw/grouped": "avx512bw",
    "avx512vnni/grouped": "avx512vnni",
    "sse4/telescoped": "sse4",
    "avx2/telescoped": "avx2",
    "avx512bw/telescoped": "avx512bw",
    "avx512vnni/telescoped": "avx512vnni",
    "sse4/lut_product": "sse4",
    "avx2/lut_product": "avx2",
    "avx512bw/lut_product": "avx512bw",
    "generic/bitserial": "generic",
    "sse4/bitserial": "sse4",
    "avx2/bitserial": "avx2",
    "avx512bw/bitserial": "icelake",
    "sse4/lane_pack": "sse4",
    "avx2/lane_pack": "avx2",
    "avx512bw/lane_pack": "avx512bw",
    "avx512vnni/lane_pack": "avx512vnni",
    "generic/group_dot": "generic",
    "sse4/group_dot": "sse4",
    "avx2/group_dot": "avx2",
    "avx512bw/group_dot": "avx512bw",
    "avx512vnni/group_dot": "avx512vnni",
}


def template(name: str) -> tuple[Template, Target]:
    """The template and its target; skips the test where this CPU lacks an instruction of it."""
    target = Target.parse(LEVELS[name])
    missing = target.missing_on(cpu_features())
    if missing:
        pytest.skip(f"{name}: this CPU lacks {', '.join(missing)}")
    return Template(*name.split("/")), target


def inputs(op: Dense | Conv2d, extremes: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Random inputs, then, if wanted, the four pairs of extremes."""
    yield op.random(np.random.default_rng(0))
    if extremes:
        yield from op.extremes()


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
    rng = np.random.default_rng(1)
    parameters, residual = op.random_parameters(rng), op.random_residual(rng)
    if special and residual is not None:
        residual = with_specials(residual, rng)
    more = [] if residual is None else [at_address(residual, residual.itemsize)]
    for x, w in inputs(op, extremes):
        x = with_specials(x, rng) if special else x
        expected = op.reference(x, w, residual, **parameters)
        y = at_address(np.full(op.y_shape, 99, op.y_dtype), expected.itemsize)
        packed = at_address(kernel.layout.pack(w, **parameters), 0)
        run(*map(_tensor, (at_address(x, x.itemsize), packed, *more, y)))
        assert y.dtype == expected.dtype
        np.testing.assert_array_equal(bits(y), bits(expected), f"{op} {chosen} {knobs}")


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


def at_address(array: np.ndarray, offset: int) -> np.ndarray:
    """A copy of the array `offset` bytes behind a 64-byte boundary."""
    memory = np.empty(array.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _tensor(array: np.ndarray):
    import tvm_ffi

    return tvm_ffi.from_dlpack(array)
