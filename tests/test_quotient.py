"""Division without divisions: the same bits, near halves above all."""

from itertools import product

import numpy as np
import pytest

from lpgen import build, choose, runtime
from lpgen.ops import parse
from lpgen.tir.quotient import LARGEST, SMALLEST

ODD = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-38, 3e38]


def near(scale, rng, count):
    """Numbers around halves and integers times a scale, a few units in the last place apart."""
    steps = rng.integers(-600, 1400, count) / 2
    x = (steps * np.float64(scale)).astype(np.float32)
    return np.float32(
        (x.view(np.int32) + rng.integers(-3, 4, count).astype(np.int32)).view(np.float32)
    )


def scales_to_try(rng):
    found = np.float32(2.0 ** rng.uniform(-39, 62, 60))
    ends = [
        SMALLEST,
        np.nextafter(np.float32(SMALLEST), 0),
        LARGEST,
        2.0**-126,
        2.0**-149,
        2.0**100,
    ]
    return [*found, *np.float32([1, 3, 1 / 3, *ends]), np.nextafter(np.float32(1), 0)]


def kernel_of(text, tmp_path):
    op = parse(text)
    build.build([choose(op, "native")], tmp_path / "kernel.so")
    return op, runtime.load(tmp_path / "kernel.so")[op.name]


@pytest.mark.parametrize(
    "text",
    [
        "quantize outer=1 axis=4099 inner=1 format=u8 per=tensor",
        "transpose shape=1x1x4099 axes=0x2x1 dtype=float32 out=s8",
    ],
)
def test_numbers_near_halves_are_quantized_as_by_a_division(text, tmp_path):
    rng = np.random.default_rng(0)
    op, kernel = kernel_of(text, tmp_path)
    names = ("scale", "zero") if op.kind == "quantize" else ("scales", "zeros")
    form = np.dtype(op.signature.output.dtype)
    kind = form if op.kind == "quantize" else np.int32
    for scale in scales_to_try(rng):
        x = near(scale, rng, 4099)
        x[: len(ODD)] = ODD
        limits = np.iinfo(form)
        zero = np.array([rng.integers(limits.min, limits.max + 1)], kind)
        given = {"x": x.reshape(op.signature.inputs[0].shape)}
        given |= dict(zip(names, (np.float32([scale]), zero), strict=True))
        assert np.array_equal(kernel(**given), op.reference(**given)), scale


@pytest.mark.parametrize("rounded", ["sum", "quotient"])
def test_all_pairs_are_added_as_by_a_division(rounded, tmp_path):
    rng = np.random.default_rng(1)
    op, kernel = kernel_of(f"add inner=65536 a=u8 b=u8 out=u8 rounded={rounded}", tmp_path)
    pairs = np.array(list(product(range(256), repeat=2)), np.uint8).T
    for scale in scales_to_try(rng)[::3]:
        scales = np.float32(scale * rng.uniform(0.3, 3, 3).astype(np.float32))
        zeros = rng.integers(0, 256, 3).astype(np.int32)
        given = {"a": pairs[0][None], "b": pairs[1], "scales": scales, "zeros": zeros}
        assert np.array_equal(kernel(**given), op.reference(**given)), scales


def test_sums_of_an_epilogue_are_quantized_as_by_a_division(tmp_path):
    rng = np.random.default_rng(2)
    words = "scale=tensor middle=u8 residual=u8 zero_residual=3 out=u8 zero_out=7"
    op, kernel = kernel_of(f"dense m=256 n=64 k=4 act=u8 weight=s8 {words}", tmp_path)
    example = op.example(rng)
    x, residual = example.inputs["x"], example.inputs["residual"]
    for scale in np.float32(2.0 ** rng.uniform(-39, 50, 40)):
        own = np.float32([scale * rng.uniform(0.3, 3)])
        parameters = {
            "scale": np.float32([2.0**-9]),
            "middle_scale": own,
            "residual_scale": np.float32(own * rng.choice([0.5, 1, 1.25])),
            "output_scale": np.float32([scale]),
        }
        packed = kernel.pack_weights(example.weights, **parameters)
        y = kernel(x, packed, residual=residual)
        expected = op.reference(x, example.weights, residual=residual, **parameters)
        assert len(np.unique(expected)) > 9
        assert np.array_equal(y, expected), parameters
