"""Libraries of networks: results of Python and C, what is inside, wrong calls."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import pytest
import tvm_ffi
from fake_kernel import fake_kernel

from lpgen import runtime
from lpgen.build import Choice
from lpgen.errors import LibraryError, NetworkError
from lpgen.network import Network, TensorType, build
from lpgen.network.check import check_network
from lpgen.network.examples import inputs_of
from lpgen.ops import parse
from lpgen.target import Target

EXAMPLES = Path(__file__).parent / "c_example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    build(networks.two_layers(), "native", folder / "two.so")
    build(networks.residual_blocks(), "native", folder / "residual.so", name="blocks")
    return folder


@pytest.fixture(scope="module")
def two(folder):
    return runtime.load(folder / "two.so").network


@pytest.fixture(scope="module")
def blocks(folder):
    return runtime.load(folder / "residual.so").network


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_network_is_its_oracle(blocks, threads):
    network = networks.residual_blocks()
    x = networks.example(network, threads)
    expected = network.reference(x)
    assert len(np.unique(expected["y"])) > 100
    y = blocks(x, threads=threads)
    assert list(y) == ["y", "t2"]
    for name, array in y.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name])


def test_every_step_can_be_read_and_timed(blocks):
    network = networks.residual_blocks()
    x = networks.example(network)
    expected = network.run(x)
    traced = list(blocks.trace(x))
    assert [step.name for step, _ in traced] == [step.name for step in network.steps]
    for step, tensor in traced:
        np.testing.assert_array_equal(tensor.ravel(), expected[step.output].ravel(), step.name)
    walk = blocks.walk(x, threads=2)
    walk.run(0, len(blocks.steps))
    assert (walk.nanoseconds > 0).all()


def test_calls_take_arrays_by_place_and_by_name(two):
    network = networks.two_layers()
    x = networks.example(network)["image"]
    expected = network.reference({"image": x})["y"]
    np.testing.assert_array_equal(two(x), expected)
    np.testing.assert_array_equal(two({"image": x}), expected)
    np.testing.assert_array_equal(two(np.moveaxis(np.moveaxis(x, 1, 2).copy(), 2, 1)), expected)
    y = np.zeros((1, 30), np.int32)
    assert two(x, out=y) is y
    np.testing.assert_array_equal(y, expected)
    y[...] = 0
    two(x, out={"y": y})
    np.testing.assert_array_equal(y, expected)
    tensor = two(tvm_ffi.from_dlpack(x))
    assert isinstance(tensor, tvm_ffi.Tensor)
    np.testing.assert_array_equal(np.from_dlpack(tensor), expected)
    run = two.bind(x, out=y)
    x[...] = 1
    run()
    np.testing.assert_array_equal(y, network.reference({"image": x})["y"])


def test_threads_share_a_network(blocks):
    network = networks.residual_blocks()
    inputs = [networks.example(network, seed) for seed in range(4)]
    expected = [network.reference(x)["y"] for x in inputs]

    def call(i):
        return all(
            (blocks(inputs[i], threads=1 + i % 2)["y"] == expected[i]).all() for _ in range(50)
        )

    with ThreadPoolExecutor(len(inputs)) as pool:
        assert all(pool.map(call, range(len(inputs))))


def test_what_a_network_says_of_itself(two, blocks):
    assert repr(two) == "<lpgen network two: 2 steps, image uint8[1, 2, 6] -> y>"
    assert two.outputs["y"].shape == (1, 30)
    assert two.tensors["hidden"].where == "arena"
    arena = blocks.interface["arena"]
    assert arena["lower_bound"] <= arena["tensor_bytes"] <= 1.15 * arena["lower_bound"]
    assert blocks.arena_bytes(2) >= blocks.arena_bytes(1) >= arena["tensor_bytes"]
    assert len({step.workload for step in blocks.steps}) == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda two, x: two(), "network two: 0 tensors, expected image uint8[1, 2, 6]"),
        (lambda two, x: two({}), "network two: image is missing"),
        (lambda two, x: two({"image": x, "b": x}), "network two: 'b' is not asked for, expected"),
        (lambda two, x: two(x[:, :1]), "image has shape [1, 1, 6], expected [1, 2, 6]"),
        (lambda two, x: two(x.astype(np.int8)), "image: int8, expected uint8"),
        (lambda two, x: two(x, threads=0), "threads=0 is not an integer within 1..1024"),
        (lambda two, x: two(x, out=x), "y has shape [1, 2, 6], expected [1, 30]"),
        (lambda two, x: two(x, out={}), "out: y is missing"),
    ],
)
def test_wrong_calls_are_said(two, call, message):
    x = np.zeros((1, 2, 6), np.uint8)
    with pytest.raises(LibraryError) as raised:
        call(two, x)
    assert str(raised.value).startswith(message)


def test_outputs_do_not_share_memory(blocks):
    x = networks.example(networks.residual_blocks())["x"]
    memory = np.zeros(x.size * 5, np.uint8)
    y, t2 = memory[: x.nbytes].view(np.float32), memory[x.nbytes - 8 :][: x.size]
    out = {"y": y.reshape(x.shape), "t2": t2.reshape(x.shape)}
    with pytest.raises(LibraryError, match=r"^network blocks: what is written overlaps another"):
        blocks(x, out=out)


def test_equal_kernels_and_constants_are_there_once(folder, blocks):
    library = runtime.load(folder / "residual.so")
    assert len(library.kernels) == 5
    offsets = [s.constants.get("packed") for s in blocks.steps if "packed" in s.constants]
    assert len(set(offsets)) == 6
    same = {s.constants["zeros"] for s in blocks.steps if "zeros" in s.constants}
    assert len(same) == 1


def test_constants_are_what_the_kernel_packs(folder):
    """But for the checksum; also for another CPU."""
    network, library = networks.two_layers(), runtime.load(folder / "two.so")
    data = (folder / "two.so").read_bytes()
    for step in network.steps:
        packed = library[step.op.name].pack_weights(step.weights, **step.parameters).numpy().copy()
        packed[48:56] = 0
        assert packed.tobytes() in data


def test_c_programs_can_rely_on_the_header(folder, tmp_path):
    program = tmp_path / "contract"
    defines = ["-DNAME=blocks", "-DSIZES=BLOCKS", "-include", folder / "residual.h"]
    source = EXAMPLES / "network_contract.c"
    flags = ["-Wall", "-Wextra", "-Werror", "-pthread"]
    command = ["cc", *flags, *defines, source, folder / "residual.so", "-o", program]
    subprocess.run(command, check=True)
    network = networks.residual_blocks()
    x = networks.example(network)
    files = []
    for array in (x["x"], *network.reference(x).values()):
        files.append(tmp_path / str(len(files)))
        files[-1].write_bytes(array.tobytes())
    run = subprocess.run([program, *files], capture_output=True, text=True, check=False)
    assert run.stdout == "ok\n", (run.stdout, run.stderr, run.returncode)


def test_its_c_compiles_without_warnings(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "cc -Wall -Wextra -Wno-missing-field-initializers -Werror")
    op = parse("dense m=2 n=3 k=4 act=u8 weight=s8")
    rng = np.random.default_rng(0)
    step = networks.step(rng, "only", op, "y */", x='x "1"')
    inputs, outputs = TensorType((2, 4), "uint8"), TensorType((2, 3), "int32")
    network = Network({'x "1"': inputs}, {"y */": outputs}, (step,))
    choice = Choice(op, Target.parse("native"), "fake/dense", {}, fake_kernel(op))
    build(network, "native", tmp_path / "odd-name.so", chooser=lambda _: choice)
    compiled = runtime.load(tmp_path / "odd-name.so").network
    x = networks.example(network)
    np.testing.assert_array_equal(compiled(x), network.reference(x)["y */"])


def test_the_example_in_c(tmp_path):
    """The classes that the C program prints are those of the largest scores."""
    rng = np.random.default_rng(0)
    head = "dense m=1 n=10 k=48 act=u8 weight=s8 out=f32 scale=channel"
    steps = (
        networks.step(rng, "q", "quantize axis=48 format=u8 per=tensor", "q", x="image"),
        networks.step(rng, "head", head, "scores", x="q"),
    )
    image, scores = TensorType((1, 4, 4, 3), "float32"), TensorType((1, 10), "float32")
    network = Network({"image": image}, {"scores": scores}, steps)
    library = build(network, "native", tmp_path / "classifier.so")
    program = tmp_path / "classify"
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-I", tmp_path, EXAMPLES / "classify.c"]
    subprocess.run([*command, library, "-o", program], check=True)
    x = networks.example(network)
    (tmp_path / "image.raw").write_bytes(x["image"].tobytes())
    if shutil.which("c++"):
        syntax = [
            "c++",
            "-std=c++11",
            "-pedantic",
            "-Wall",
            "-Werror",
            "-fsyntax-only",
            "-x",
            "c++",
        ]
        subprocess.run([*syntax, library.with_suffix(".h")], check=True)
    run = subprocess.run([program, tmp_path / "image.raw"], capture_output=True, text=True)
    expected = network.reference(x)["scores"].ravel()
    order = np.argsort(-expected, kind="stable")[:5]
    assert run.stdout.splitlines() == [f"{i} {expected[i]:.6g}" for i in order], run.stderr
    assert subprocess.run([program, program], capture_output=True).returncode == 0
    assert subprocess.run([program], capture_output=True).returncode == 1


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """two_layers with its weights in a file."""
    folder = tmp_path_factory.mktemp("beside")
    return build(networks.two_layers(), "native", folder / "two.so", weights_beside=True)


def test_weights_may_lie_beside_the_library(beside, folder):
    network = networks.two_layers()
    x = networks.example(network)
    built = runtime.load(beside).network
    np.testing.assert_array_equal(built(x), network.reference(x)["y"])
    weights = beside.with_suffix(".weights").read_bytes()
    assert len(weights) == 64 + built.constant_bytes
    assert weights[64:] in (folder / "two.so").read_bytes()
    assert weights[64:] not in beside.read_bytes()
    (step, _) = built.steps
    np.testing.assert_array_equal(built.constant(step.constants["packed"], 7), [*b"lpgen-w"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1] + b"x", r"two\.weights: is damaged, or no file of weights$"),
        (lambda data: data[:-1], r"two\.weights: is damaged, or no file of weights$"),
        (lambda data: b"", r"two\.weights: is damaged, or no file of weights$"),
        (lambda data: b"x" + data[1:], r"two\.weights: holds the weights of another library$"),
        (None, r"two\.weights: No such file or directory; it holds the weights$"),
    ],
)
def test_other_files_of_weights_are_errors(beside, tmp_path, change, message):
    path = tmp_path / "two.so"
    path.write_bytes(beside.read_bytes())
    if change:
        weights = change(beside.with_suffix(".weights").read_bytes())
        path.with_suffix(".weights").write_bytes(weights)
    network = runtime.load(path).network
    with pytest.raises(LibraryError, match=message):
        network(np.zeros((1, 2, 6), np.uint8))


def test_c_programs_map_weights(beside, tmp_path):
    program = tmp_path / "main.c"
    program.write_text(
        f"""#include <stdio.h>
#include <stdlib.h>
#include "{beside.with_suffix(".h")}"
int main(void) {{
  uint8_t x[12] = {{1}};
  int32_t y[30];
  const void *inputs[] = {{x}};
  void *outputs[] = {{y}}, *arena = aligned_alloc(64, 1 << 20);
  int before = two_run(inputs, outputs, arena, 1 << 20, 1);
  int wrong = two_map_weights("{program}"), none = two_map_weights("/nowhere");
  int mapped = two_map_weights("{beside.with_suffix(".weights")}");
  int again = two_map_weights("{beside.with_suffix(".weights")}");
  int after = two_run(inputs, outputs, arena, 1 << 20, 1);
  printf("%d\\n", before == LPGEN_WEIGHTS_UNMAPPED && wrong == LPGEN_WEIGHTS_FILE &&
         none == LPGEN_WEIGHTS_FILE && !mapped && !again && !after);
}}"""
    )
    subprocess.run(["cc", program, beside, "-o", tmp_path / "main"], check=True)
    run = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"


def test_a_network_for_another_cpu_has_the_same_constants(tmp_path):
    """Kernels of the same template and knobs, packed here; the header names the level."""
    network = networks.two_layers()
    path = build(network, "sapphirerapids", tmp_path / "other.so")
    library = runtime.Library(path)
    level = Target.parse("sapphirerapids").level.encode()
    for step in library.network.steps:
        head = library.network.constant(step.constants["packed"], 64).tobytes()
        assert head.startswith(b"lpgen-w")
        assert head[32:48].rstrip(b"\0") == level


def test_weights_that_cannot_be_packed_are_said(tmp_path):
    network = networks.two_layers()
    first = replace(network.steps[0], weights=np.full((12, 6), 9))
    with pytest.raises(
        NetworkError, match=r"^step first: weights\[0, 0\] = 9 is not a value of s3"
    ):
        build(replace(network, steps=(first, network.steps[1])), "native", tmp_path / "a.so")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["1st", "a-b", "pool", ""])
def test_names_that_c_does_not_take_are_said(tmp_path, name):
    with pytest.raises(NetworkError, match="name"):
        build(networks.two_layers(), "native", tmp_path / f"{name or '-'}.so", name=name)


def test_random_inputs_name_rows_that_a_table_has(tmp_path):
    """Also where they are cast before."""
    rng = np.random.default_rng(0)
    steps = (
        networks.step(rng, "cast", "cast size=50 dtype=int64 to=int32", "index", x="ids"),
        networks.step(
            rng, "rows", "gather rows=5 columns=3 count=50 dtype=float32", "y", index="index"
        ),
    )
    ids, y = TensorType((50,), "int64"), TensorType((50, 3), "float32")
    path = build(Network({"ids": ids}, {"y": y}, steps), "native", tmp_path / "rows.so")
    inputs = inputs_of(runtime.load(path).network, rng)
    assert set(inputs["ids"]) == set(range(5))
    assert all(checked.failure is None for checked in check_network(path))
