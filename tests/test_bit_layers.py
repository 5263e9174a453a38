"""Bit layers whose number is an argument: words, packers, the range of rows beside it, libraries
from Python and from C, tuning and timing."""

import ctypes
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import LEVELS, bits, template, template_of
from packers import assert_packers_agree
from strategies import layered_convs, layered_denses

from lpgen import runtime, templates
from lpgen.bench import bench
from lpgen.bench.turns import compared
from lpgen.build import build
from lpgen.build.check import check_library
from lpgen.errors import LibraryError, NetworkError, UserError, WorkloadError
from lpgen.network import Network, Step, TensorType
from lpgen.network import build as build_network
from lpgen.network.check import check_network
from lpgen.ops import parse
from lpgen.ops.rows import Range
from lpgen.records.choose import choose
from lpgen.runtime.memory import aligned_copy
from lpgen.target import Target
from lpgen.tune import tune

NAMES = [name for name in LEVELS if name.endswith("/bit_layers")]
GEMV = parse("dense m=1 n=70 k=100 act=s8 weight=u8 layers=1..8 out=f32 scale=group32")
ROWS = parse(
    "dense m=1..9 n=18 k=70 act=s8 weight=s4 layers=2..4 input=f32:row out=f32 scale=group16"
)


@given(layered_denses() | layered_convs())
def test_every_operator_survives_its_text(op):
    assert parse(str(op)) == op
    assert str(parse(str(op))) == str(op)


def test_a_prefix_of_codes_has_their_leading_bits():
    w = np.arange(256)
    assert GEMV.bit_layers.codes(w, 3).tolist() == (w // 32).tolist()
    signed = parse(str(GEMV).replace("u8", "s8")).bit_layers
    assert signed.codes(np.int8([-128, -1, 0, 127]), 2).tolist() == [-2, -1, 0, 1]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("layers=1..7", "weight=u8 has 8 bits, as many layers as that"),
        ("layers=0..8", "layers=0..8 is no range LOW..HIGH, 1 <= LOW < HIGH"),
        ("layers=8", "8 is not a range, such as 1..8"),
        ("layers=1..8 zero_weight=3", "has scales of its own, and no zero_weight=3 beside them"),
        (
            "layers=1..8 zero_weight=group",
            "has scales of its own, and no zero_weight=group beside them",
        ),
        ("layers=1..8 weight=b4", "weight=b4 is none of u2..u8, s2..s8 and b1"),
        ("layers=1..17 weight=b1", "of weight=b1 there are up to 16 planes"),
        ("layers=1..8 scale=channel", "layers=1..8 needs scale=groupN"),
        (
            "layers=1..8 act=u8 zero_act=3",
            r"act=u8 less zero_act=3 is -3..252, outside -128..127 and 0..255",
        ),
    ],
)
def test_words_that_do_not_fit(words, reason):
    given = {"act": "s8", "weight": "u8", "scale": "group32"}
    given |= dict(word.split("=") for word in words.split())
    with pytest.raises(WorkloadError, match=reason):
        parse(f"dense m=1 n=8 k=64 out=f32 {' '.join('='.join(item) for item in given.items())}")


def test_the_oracle_wants_a_number_that_there_is():
    example = GEMV.example(np.random.default_rng(0))
    for number in (0, 9):
        with pytest.raises(WorkloadError, match=rf"layers is {number}, the operator has 1\.\.8"):
            GEMV.reference(**example.with_layers(number).given)
    with pytest.raises(WorkloadError, match="layers is missing"):
        GEMV.reference(example.inputs["x"], example.weights, **example.parameters)
    plain = parse("dense m=1 n=4 k=4 act=u8 weight=s8")
    with pytest.raises(WorkloadError, match="layers is not asked for"):
        plain.reference(*plain.random(np.random.default_rng(0)), layers=1)


def test_only_the_template_for_layers_serves_them():
    for name in ("generic", "sse4", "icelake"):
        target = Target.parse(name)
        serving = templates.templates_for(GEMV, target)
        assert [chosen.algorithm for chosen in serving] == ["bit_layers"]
    reasons = {t.name: why for t, why in templates.explain(GEMV, target).items()}
    assert reasons["x86/blockwise_dot"].endswith(", not layers=LOW..HIGH")


@settings(max_examples=12, deadline=None)
@given(name=st.sampled_from(NAMES), op=layered_denses(columns=20) | layered_convs(), data=st.data())
def test_both_packers_give_the_same_bytes(name, op, data):
    chosen, target = template_of(name)
    seed = data.draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    layout = chosen.kernel(op, target, chosen.space(op, target).sample(rng)).layout
    _, w = op.random(rng)
    parameters = op.random_parameters(rng)
    assert_packers_agree(layout, w, **parameters)


@pytest.mark.parametrize("top", [1, 2])
def test_a_layer_more_is_one_bit_of_each_weight_more(top):
    """The planes of a prefix lie in front, of 8 codes of a bit or 4 of two in a byte."""
    op = parse("dense m=1 n=64 k=256 act=s8 weight=u8 layers=1..8 out=f32 scale=group32")
    chosen, target = templates.get("x86/bit_layers"), Target.parse("icelake")
    knobs = {**chosen.default(op, target), "vectors": 4, "top": top}
    layout = chosen.kernel(op, target, knobs).layout
    widths = {1: [1, 1, 2, 2, 2], 2: [2, 2, 2, 2]}[top]
    assert [section.nbytes for section in layout.sections[:-1]] == [64 * 32 * w for w in widths]
    w = np.zeros((64, 256), np.uint8)
    w[:, ::2] = 0b1101_0010
    ones = np.ones((8, 64, 8), np.float32)
    packed, start = layout.pack(w, scale=ones, offset=ones), 0
    for section, width, code in zip(
        layout.sections, widths, {1: [1, 1, 1, 0, 2], 2: [3, 1, 0, 2]}[top], strict=False
    ):
        of_k = packed[start : start + section.nbytes].reshape(-1, 4)  # neighbours in k, of a step
        byte = sum(code << at for at in range(0, 8, width))
        assert (of_k == [byte, 0, byte, 0]).all()
        start += section.nbytes


@pytest.mark.parametrize("name", ["avx512vnni/bit_layers", "avx2/bit_layers", "generic/bit_layers"])
def test_rows_and_layers_of_a_call(name):
    import tvm_ffi

    from lpgen.build.lower import ranged_module
    from lpgen.ops.rows import entry_at

    chosen, target = template(name)
    knobs = {**chosen.default(ROWS, target), "rows": 4, "vectors": 1}
    kernel, sizes = chosen.kernel(ROWS, target, knobs), [1, 3, 4, 7, 9]
    assert [body.rows for body in kernel.bodies] == [1, Range(2, 9), Range(4, 9)]
    module = ranged_module(kernel, target, 2, sizes)
    for rows, layers in zip(sizes, (2, 3, 4, 3, 2), strict=True):
        op = ROWS.at(rows)
        example = op.example(np.random.default_rng(rows)).with_layers(layers)
        y = np.full(op.y_shape, 99, np.float32)
        packed = aligned_copy(kernel.layout.pack(example.weights, **example.parameters))
        values = op.signature.ordered(example.inputs | {"packed": packed, "y": y})
        tensors = [tvm_ffi.from_dlpack(v) if isinstance(v, np.ndarray) else v for v in values]
        module[entry_at(rows)](*tensors)
        np.testing.assert_array_equal(bits(y), bits(op.reference(**example.given)))


# ---- libraries


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers")
    return build([choose(op, "native", use_shipped=False) for op in (GEMV, ROWS)], folder / "l.so")


def test_a_library_serves_every_number_of_layers(path):
    assert [checked.failure for checked in check_library(path)] == [None, None]
    kernel = runtime.load(path)[GEMV.name]
    example = GEMV.example(np.random.default_rng(0))
    packed = kernel.pack_weights(example.weights, **example.parameters)
    for layers in GEMV.bit_layers.all:
        expected = GEMV.reference(**example.with_layers(layers).given)
        y = kernel(example.inputs["x"], packed, layers=layers)
        np.testing.assert_array_equal(bits(y), bits(expected))
        kernel.bind(example.inputs["x"], packed, layers, out=y)()
        np.testing.assert_array_equal(bits(y), bits(expected))


def test_numbers_of_layers_that_a_kernel_has_not(path):
    kernel = runtime.load(path)[GEMV.name]
    example = GEMV.example(np.random.default_rng(0))
    packed = kernel.pack_weights(example.weights, **example.parameters)
    for layers in (0, 9, 2.5):
        with pytest.raises(
            LibraryError, match=rf"layers={layers} is not an integer within 1\.\.8$"
        ):
            kernel(example.inputs["x"], packed, layers=layers)
    with pytest.raises(LibraryError, match=r"layers is missing$"):
        kernel(example.inputs["x"], packed)


def test_layers_in_c(path):
    kernel, library = runtime.load(path)[GEMV.name], ctypes.CDLL(str(path))
    assert " * layers 1..8\n" in path.with_suffix(".h").read_text()
    run = getattr(library, kernel.symbol)
    library.lpgen_status_message.restype = ctypes.c_char_p
    example = GEMV.example(np.random.default_rng(0))
    packed = kernel.pack_weights(example.weights, **example.parameters).numpy()
    y = np.zeros(GEMV.y_shape, np.float32)
    scratch = aligned_copy(np.zeros(kernel.workspace_bytes(1) + 1, np.uint8))

    def call(layers: int) -> str:
        x, w, result, work = (
            (ctypes.c_void_p(a.ctypes.data), ctypes.c_size_t(a.nbytes))
            for a in (example.inputs["x"], packed, y, scratch)
        )
        status = run(*x, *w, ctypes.c_int32(layers), *result, *work, 1)
        return library.lpgen_status_message(status).decode()

    assert call(3) == "ok"
    np.testing.assert_array_equal(bits(y), bits(GEMV.reference(**example.with_layers(3).given)))
    assert call(0) == call(9) != "ok"


def test_every_number_of_layers_is_timed(path):
    measured = [*itertools.islice(bench(path), 3)]
    assert [(m.workload, m.layers) for m in measured] == [(GEMV.name, n) for n in (1, 2, 3)]
    assert {b.bytes - a.bytes for a, b in itertools.pairwise(measured)} == {70 * 100 // 8}


def test_other_libraries_are_not_asked():
    with pytest.raises(UserError, match=r"layers=1\.\.8: no other library has"):
        compared(GEMV)


def test_some_numbers_of_layers_are_tuned_together(tmp_path):
    assert GEMV.bit_layers.round() == {1: 8, 2: 4, 4: 2, 8: 1}
    assert ROWS.bit_layers.round() == {2: 2, 4: 1}
    assert GEMV.ops_timed == 15 * GEMV.ops
    op = parse("dense m=1 n=16 k=32 act=s8 weight=u2 layers=1..2 out=f32 scale=group16")
    log = tmp_path / "log.jsonl"
    (result,) = tune([op], "native", trials=2, log=log)
    assert result.best.workload == op.name
    assert choose(op, "native", [log], use_shipped=False).knobs == result.best.knobs


# ---- networks


def two_steps() -> Network:
    """x float32[1, 40] -> dense -> dense -> y float32[1, 9]; layers is an input of both, and those
    of a third step are always two."""
    rng, steps, read = np.random.default_rng(0), [], "x"
    for name, n, k in (("first", 24, 40), ("second", 16, 24), ("y", 9, 16)):
        op = parse(
            f"dense m=1 n={n} k={k} act=s8 weight=u4 layers=1..4 input=f32:row "
            "out=f32 scale=group16"
        )
        example = op.example(rng)
        inputs, constants = {"x": read, "layers": "layers"}, {}
        if name == "y":
            constants = {"layers": np.array(2, np.int32)}
            del inputs["layers"]
        steps.append(Step(name, op, inputs, name, example.weights, example.parameters, constants))
        read = name
    given = {"x": TensorType((1, 40), "float32"), "layers": TensorType((), "int32")}
    return Network(given, {"y": TensorType((1, 9), "float32")}, tuple(steps))


def test_a_network_takes_the_number_of_layers(tmp_path):
    network = two_steps()
    built = build_network(network, "native", tmp_path / "net.so")
    assert {checked.failure for checked in check_network(built, network=network)} == {None}
    net = runtime.load(built).network
    x = np.random.default_rng(1).normal(size=(1, 40)).astype(np.float32)
    for layers in (1, 3, 4):
        expected = network.reference({"x": x, "layers": np.array(layers, np.int32)})["y"]
        np.testing.assert_array_equal(bits(net(x, layers=layers)), bits(expected))
        np.testing.assert_array_equal(bits(net({"x": x, "layers": layers})), bits(expected))
    y = np.zeros((1, 9), np.float32)
    net.bind(x, layers=4, out=y)()
    np.testing.assert_array_equal(bits(y), bits(expected))
    with pytest.raises(LibraryError, match="step 0: a number is not within the limits"):
        net(x, layers=5)
    with pytest.raises(LibraryError, match=r"1 tensors, expected x .*, layers int32"):
        net(x)


def test_layers_are_no_result_of_a_step():
    network = two_steps()
    first, second, last = network.steps
    wrong = replace(second, inputs={**second.inputs, "layers": "first"})
    with pytest.raises(NetworkError, match="layers is int32"):
        Network(network.inputs, network.outputs, (first, wrong, last))
