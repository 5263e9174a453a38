"""A library of fake kernels that the tests of this folder load."""

import numpy as np
import pytest
from fake_kernel import fake_kernel
from loaded import BIPOLAR, BYTES, LARGE

from lpgen import runtime
from lpgen.build import Choice, build
from lpgen.ops import parse
from lpgen.records.choose import choose
from lpgen.target import Target


@pytest.fixture(scope="session")
def target():
    return Target.parse("native")


@pytest.fixture(scope="session")
def path(tmp_path_factory, target):
    choices = [
        Choice(BYTES, target, "fake/dense", {}, fake_kernel(BYTES)),
        Choice(BIPOLAR, target, "fake/dense", {}, fake_kernel(BIPOLAR, serial=True)),
        Choice(LARGE, target, "fake/dense", {}, fake_kernel(LARGE, serial=True, parallel=True)),
    ]
    return build(choices, tmp_path_factory.mktemp("runtime") / "lib.so")


@pytest.fixture(scope="session")
def lib(path):
    return runtime.load(path)


@pytest.fixture
def problem(lib):
    """(kernel, x, packed weights, exact result) for BYTES."""
    kernel = lib[BYTES.name]
    x, w = BYTES.random(np.random.default_rng(0))
    return kernel, x, kernel.pack_weights(w), BYTES.reference(x, w)


@pytest.fixture(scope="session")
def adding(tmp_path_factory, target):
    """(kernel, packed weights) of an operator that adds a residual of the result's type, with an x
    of the result's size."""
    op = parse("dense m=4 n=8 k=8 act=u8 weight=s8 out=u8 scale=channel bias=s32 residual=u8")
    path = build([choose(op, target)], tmp_path_factory.mktemp("adding") / "lib.so")
    kernel = runtime.load(path)[op.name]
    rng = np.random.default_rng(0)
    return kernel, kernel.pack_weights(op.random(rng)[1], **op.random_parameters(rng))
