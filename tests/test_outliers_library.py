"""Libraries with outliers: results, what is refused, and weights that are damaged."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

from lpgen import runtime
from lpgen.build import build
from lpgen.build.check import check_library
from lpgen.errors import FormatError, LibraryError
from lpgen.ops import outliers, parse
from lpgen.records.choose import choose

CONV = parse(
    "conv2d n=2 h=7 w=19 ic=36 oc=18 groups=2 kernel=3 stride=2x1 pad=1 act=u8 weight=s4 "
    "zero_act=9 outliers=130 out=u8 scale=channel bias=s32"
)


def problem():
    """(x, w, parameters) of CONV."""
    rng = np.random.default_rng(0)
    return *CONV.random(rng), CONV.random_parameters(rng)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    choices = [choose(CONV, "generic", use_shipped=False)]
    return build(choices, tmp_path_factory.mktemp("outliers") / "lib.so")


def test_a_library_with_outliers(path):
    assert [result.failure for result in check_library(path)] == [None]
    kernel = runtime.load(path)[CONV.name]
    x, w, parameters = problem()
    y = kernel(x, kernel.pack_weights(w, **parameters), threads=2)
    np.testing.assert_array_equal(y, CONV.reference(x, w, **parameters))


@pytest.mark.parametrize(
    ("change", "oracle", "library"),
    [
        (("indptr", 0, 1), r"indptr\[0\] = 1 is not 0", "does not ascend from 0"),
        (("indptr", 3, 0), r"indptr\[3\] = 0 is less than", "does not ascend from 0"),
        (("indptr", -1, 131), r"indptr\[18\] = 131 is outside", r"\[18\] = 131 is outside of"),
        (("indices", 0, 162), r"indices\[0\] = 162 is outside", r"\[0\] = 162 is outside of"),
        (("indices", 1, 0), r"indices\[1\] = 0 does not ascend", "does not ascend from 0"),
        (("data", 2, 128), r"data\[2\] = 128 is outside", r"data\[2\] = 128 is outside of"),
    ],
)
def test_outliers_in_another_order(path, change, oracle, library):
    x, w, parameters = problem()
    parameters |= outliers.parameters(
        CONV, sparse.csr_array(np.eye(18, 162, dtype=int) * 3 + np.eye(18, 162, k=5, dtype=int))
    )
    what, i, value = change
    wrong = parameters[f"outlier_{what}"].astype(np.int64)
    wrong[i] = value
    parameters[f"outlier_{what}"] = wrong
    with pytest.raises(FormatError, match=oracle):
        CONV.reference(x, w, **parameters)
    with pytest.raises((LibraryError, RuntimeError), match=library):
        runtime.load(path)[CONV.name].pack_weights(w, **parameters)


@pytest.mark.parametrize(
    "op",
    [
        CONV,
        parse("dense m=1 n=40 k=500 act=u8 weight=s4 outliers=300"),
        parse("dense m=70 n=40 k=2000 act=u4 weight=s4 outliers=300"),  # distances in int32
    ],
    ids=str,
)
def test_damaged_weights_do_not_lead_out_of_any_buffer(op, tmp_path):
    """In another process, which a signal would end: random bytes behind a whole header."""
    path = build([choose(op, "native", use_shipped=False)], tmp_path / "lib.so")
    code = f"""
import numpy as np
from lpgen import runtime
kernel = runtime.load({str(path)!r})[{op.name!r}]
rng = np.random.default_rng(0)
taken = kernel.arguments["x"]
x = rng.integers(0, {op.act.max + 1}, taken.shape).astype(taken.dtype)
sizes = dict((p["name"], p["shape"]) for p in kernel.interface["parameters"])
packed = kernel.pack_weights(
    np.zeros(kernel.weights.shape, int), **dict((n, np.zeros(s, int)) for n, s in sizes.items())
)
data = packed.numpy()[64:]
for change in (255, 128, 127, *[None] * 50):
    data[:] = rng.integers(0, 256, data.size) if change is None else change
    kernel(x, packed)
print("survived")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "survived\n", (run.returncode, run.stderr[-500:])
