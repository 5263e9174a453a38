"""Variants of a network: plans and numbers of bit layers in one library, and the best of them that
is fast enough."""

import json
from dataclasses import replace

import numpy as np
import pytest
from kernels import bits
from test_bit_layers import two_steps

from lpgen import runtime
from lpgen.errors import LibraryError, NetworkError
from lpgen.network import Network, Step, TensorType, build_plans
from lpgen.network.check import check_network
from lpgen.ops import parse
from lpgen.runtime import Variant, Variants

X = np.random.default_rng(1).normal(size=(1, 40)).astype(np.float32)


def plain() -> Network:
    """A network that takes and gives what `two_steps` does, of weights without layers."""
    op = parse("dense m=1 n=9 k=40 act=s8 weight=s2 input=f32:row out=f32 scale=channel")
    example = op.example(np.random.default_rng(0))
    step = Step("y", op, {"x": "x"}, "y", example.weights, example.parameters)
    kinds = (TensorType((1, size), "float32") for size in (40, 9))
    return Network(*({name: kind} for name, kind in zip("xy", kinds, strict=True)), (step,))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "net.so"
    return runtime.load(build_plans({"layered": two_steps(), "two_bits": plain()}, "native", path))


def test_a_library_holds_several_plans(library):
    assert [*library.plans] == ["layered", "two_bits"]
    assert library.network is library.plans["layered"]
    for plan, network in (("layered", two_steps()), ("two_bits", plain())):
        results = check_network(library.path, network=network, plan=plan)
        assert {checked.failure for checked in results} == {None}
    header = library.path.with_suffix(".h").read_text()
    assert "net_layered_run(" in header
    assert "net_two_bits_run(" in header


def test_every_variant_computes_what_its_plan_does(library):
    variants = library.measure_variants(X)
    named = ["layered layers=4", "layered layers=3", "layered layers=2", "layered layers=1"]
    assert [variant.name for variant in variants] == [*named, "two_bits"]
    assert all(0 < variant.seconds < 1 for variant in variants)
    for variant in variants:
        given = {"x": X}
        given |= {"layers": np.array(variant.layers, np.int32)} if variant.layers else {}
        network = two_steps() if variant.layers else plain()
        expected = network.reference(given)["y"]
        np.testing.assert_array_equal(bits(variant(X)), bits(expected))
        y = np.zeros_like(expected)
        variant.bind(X, out=y)()
        np.testing.assert_array_equal(bits(y), bits(expected))


def test_times_are_kept_beside_the_library(library):
    measured = library.measure_variants(X)
    kept = runtime.load(library.path).variants()
    assert [v.seconds for v in kept] == [v.seconds for v in measured]
    with pytest.raises(LibraryError, match=r"net\.times\.json: has no times .* with threads=2"):
        library.variants(threads=2)
    path = library.path.with_suffix(".times.json")
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"cpu": "another"}))
    with pytest.raises(LibraryError, match=r"has no times of layered layers=4 on this CPU"):
        library.variants()
    path.write_text("[]")
    with pytest.raises(LibraryError, match=r"net\.times\.json: is no file of times"):
        library.variants()
    path.unlink()


def test_the_best_one_that_is_fast_enough():
    times = {4: 40e-6, 3: 42e-6, 2: 20e-6, 1: 10e-6}
    variants = Variants([Variant("", n, seconds, None) for n, seconds in times.items()])
    found = {us: variants.within(us * 1e-6).layers for us in (100, 41, 39, 21, 15, 5)}
    assert found == {100: 4, 41: 4, 39: 2, 21: 2, 15: 1, 5: 1}
    for wrong in (0, -1.0, float("nan"), "1 ms", True):
        with pytest.raises(LibraryError, match=r"expected seconds above 0, such as 800e-6"):
            variants.within(wrong)


def test_a_kernel_has_variants_too(library):
    op = two_steps().steps[0].op
    kernel = library[op.name]
    example = op.example(np.random.default_rng(0))
    packed = kernel.pack_weights(example.weights, **example.parameters)
    variants = library.measure_variants(X, packed, kernel=op.name, save=False)
    assert [variant.layers for variant in variants] == [4, 3, 2, 1]
    expected = op.reference(X, example.weights, layers=2, **example.parameters)
    np.testing.assert_array_equal(bits(variants[2](X, packed)), bits(expected))


def test_plans_that_are_not_of_one_model(tmp_path):
    other = replace(
        plain(), inputs={"x": TensorType((1, 40), "float32"), "more": plain().inputs["x"]}
    )
    with pytest.raises(NetworkError, match=r"plan b: input more is float32.*, that of plan a not"):
        build_plans({"a": plain(), "b": other}, "native", tmp_path / "net.so")
    with pytest.raises(NetworkError, match="there are no plans"):
        build_plans({}, "native", tmp_path / "net.so")
    assert not [*tmp_path.iterdir()]
