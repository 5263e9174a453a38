"""The check of a library: exact kernels pass, wrong and crashing ones are told apart."""

from dataclasses import replace

import pytest
from fake_kernel import fake_kernel

from lpgen.build import Choice, build
from lpgen.build.check import check_library
from lpgen.ops import Dense
from lpgen.target import Target

BYTES = Dense(5, 7, 33, "u8", "s8")
BIPOLAR = Dense(5, 7, 33, "s4", "b2")


@pytest.fixture(scope="module")
def target():
    return Target.parse("native")


@pytest.mark.starts
def test_a_good_library_passes_the_check(tmp_path, target):
    large = Dense(20, 30, 6000, "u2", "t2")
    choices = [
        Choice(BYTES, target, "fake/dense", {}, fake_kernel(BYTES)),
        Choice(BIPOLAR, target, "fake/dense", {}, fake_kernel(BIPOLAR, serial=True)),
        Choice(large, target, "fake/dense", {}, fake_kernel(large, serial=True, parallel=True)),
    ]
    results = list(check_library(build(choices, tmp_path / "lib.so")))
    assert [result.workload for result in results] == [BYTES.name, BIPOLAR.name, large.name]
    assert all(result.failure is None and result.calls >= 12 for result in results)


def test_wrong_and_crashing_kernels_fail_the_check(tmp_path, target):
    wrong = Choice(BYTES, target, "fake/wrong", {}, fake_kernel(BIPOLAR))
    right = Choice(BIPOLAR, target, "fake/right", {}, fake_kernel(BIPOLAR))
    crash = Dense(5, 7, 34, "u8", "s8")
    # A kernel for far larger tensors than it is given: it reads where nothing is.
    huge = Dense(5, 200_000, 4000, "u8", "s8")
    kernel = replace(fake_kernel(crash), module=fake_kernel(huge).module)
    choices = [wrong, Choice(crash, target, "fake/crash", {}, kernel), right]
    results = list(check_library(build(choices, tmp_path / "lib.so")))
    assert [result.workload for result in results] == [BYTES.name, crash.name, BIPOLAR.name]
    assert "wrong, the first y[" in results[0].failure
    assert "crashed: SIG" in results[1].failure
    assert results[2].failure is None
