"""Lowering: exact at every address, scratch memory where it was promised to be."""

import re

import numpy as np
import pytest
import tvm_ffi
from fake_kernel import fake_kernel
from tvm import IRModule, te, tirx
from tvm.s_tir import Schedule
from tvm_ffi import structural_walk

from lpgen.algorithms.kernel import Function
from lpgen.build.lower import jit, jit_module, lower
from lpgen.build.stack import STACK_LIMIT, STACK_TOTAL, Scratch
from lpgen.ops import Dense
from lpgen.ops.signature import Argument, Role, Signature, packed_weights, scalar
from lpgen.runtime.memory import aligned, aligned_copy
from lpgen.target import Target

SMALL = Dense(5, 7, 33, "u8", "s8")
LARGE = Dense(9, 6, 5000, "u8", "s8")


@pytest.fixture(scope="module")
def target():
    return Target.parse("native")


def call(function, *arrays):
    function(*map(tvm_ffi.from_dlpack, arrays))


def elements(size, dtype):
    """The signature (x, packed, y) of functions on so many elements."""
    x, y = (Argument(n, r, (size,), dtype) for n, r in (("x", Role.INPUT), ("y", Role.OUTPUT)))
    return Signature((x, packed_weights(size), y))


def scratch_of(kernel, target):
    return lower({"f": kernel.function}, target).scratch["f"]


@pytest.mark.parametrize("options", [{}, {"serial": True}, {"parallel": True}])
@pytest.mark.parametrize("op", [SMALL, LARGE], ids=["small", "large"])
def test_exact_at_every_address(op, options, target):
    kernel = fake_kernel(op, **options)
    run = jit(kernel, target)
    values, w = op.random(np.random.default_rng(0))
    packed = aligned_copy(kernel.layout.pack(w))
    for x_offset, y_offset in [(0, 0), (1, 4), (17, 1), (63, 62)]:
        x = aligned_copy(values, x_offset)
        y = aligned_copy(np.zeros(op.y_shape, np.int32), y_offset)
        call(run, x, packed, y)
        assert np.array_equal(y, op.reference(values, w))


def test_only_the_packed_weights_are_promised_to_be_aligned(target):
    code = lower({"f": fake_kernel(SMALL).function}, target).compile().inspect_source("ll")
    (signature,) = re.findall(r"^define .* @f\((.*)\)", code, re.MULTILINE)
    x, packed, y, _ = signature.split(", ")
    assert "align 64" in packed
    assert "align" not in x + y
    assert all("noalias" in parameter for parameter in (x, packed, y))


def test_vectors_move_without_alignment_where_none_is_promised():
    """The same copy loop, from x and from the packed weights, for SSE: movups and movaps."""
    x = te.placeholder((64,), "int32", name="x")
    packed = te.placeholder((64,), "int32", name="packed")
    y = te.compute((64,), lambda i: x[i] + packed[i], name="y")
    sch = Schedule(IRModule({"main": te.create_prim_func([x, packed, y])}))
    sch.vectorize(sch.split(sch.get_loops("y")[0], [None, 4])[-1])
    function = Function(sch.mod, elements(64, "int32"))
    module = lower({"f": function}, Target.parse("sse4")).compile()
    (body,) = re.findall(r"^f:\n(.*?)\n\.Lfunc_end", module.inspect_source("asm"), re.S | re.M)
    moves = re.findall(r"\t(mov\w+|paddd)\t(.*)", body)
    loads = [name for name, operands in moves if operands.startswith(("(%rdi", "16(%rdi"))]
    stores = [name for name, operands in moves if operands.endswith("(%rdx)")]
    assert set(loads) == {"movdqu"}
    assert set(stores) == {"movdqu"}
    assert ("paddd", "(%rsi), %xmm0") in moves


@pytest.mark.parametrize(
    ("k", "options", "expected"),
    [
        (100, {"serial": True}, Scratch(0, 0)),
        (STACK_LIMIT // 4, {}, Scratch(0, 0)),
        (STACK_LIMIT // 4 + 1, {}, Scratch(STACK_LIMIT + 64, 0)),
        (STACK_LIMIT // 4 + 1, {"parallel": True}, Scratch(0, STACK_LIMIT + 64)),
        (9000, {"serial": True, "parallel": True}, Scratch(9 * 36_000 + 32, 36_032)),
    ],
)
def test_what_the_stack_does_not_take_is_workspace(k, options, expected, target):
    scratch = scratch_of(fake_kernel(Dense(9, 6, k, "u8", "s8"), **options), target)
    assert scratch == expected
    assert scratch.nbytes(3) == expected.serial + 3 * expected.per_thread


def _shifted(x, size, by):
    return te.compute((size,), lambda i: x[i] + tirx.const(by, "uint8"), name=f"plus{by}")


def test_the_stack_has_a_limit_for_all_buffers_together(target):
    count, size = STACK_TOTAL // STACK_LIMIT + 2, STACK_LIMIT
    x = te.placeholder((size,), "uint8", name="x")
    packed = te.placeholder((size,), "uint8", name="packed")
    copies = [_shifted(x, size, by) for by in range(count)]

    def total(i):
        return sum((copy[size - 1 - i].astype("int32") for copy in copies), packed[i])

    y = te.compute((size,), total, name="y")
    module = IRModule({"main": te.create_prim_func([x, packed, y])})
    function = Function(module, elements(size, "uint8"))
    assert lower({"f": function}, target).scratch["f"] == Scratch(2 * size, 0)


def test_workspace_is_given_back_and_small_scratch_never_asked_for(target):
    code = jit_module(fake_kernel(LARGE, serial=True), target).inspect_source("ll")
    assert len(re.findall(r"load ptr, ptr @__TVMBackendAllocWorkspace", code)) >= 1
    assert len(re.findall(r"load ptr, ptr @__TVMBackendFreeWorkspace", code)) >= 1
    code = jit_module(fake_kernel(SMALL, serial=True), target).inspect_source("ll")
    assert "Workspace" not in code


def test_scratch_on_the_stack_starts_on_a_cache_line(target):
    # As LLVM gets it, which may keep all of it in registers.
    module = lower({"f": fake_kernel(SMALL, serial=True).function}, target).module
    found = []
    for func in module.functions.values():
        structural_walk(func.body, (tirx.AllocBuffer, lambda alloc: found.append(alloc.buffer)))
    allocated = [(str(buffer.dtype), [int(extent) for extent in buffer.shape]) for buffer in found]
    assert ("uint8x64", [11]) in allocated


def test_a_packer_is_lowered_like_a_kernel(target):
    layout = fake_kernel(SMALL).layout
    _, w = SMALL.random(np.random.default_rng(0))
    packed = aligned(layout.nbytes)
    call(jit(fake_kernel(SMALL).packer, target), w, packed)
    assert np.array_equal(packed, layout.pack(w))


def test_tensors_that_do_not_fit_are_refused(target):
    run = jit(fake_kernel(SMALL), target)
    x, packed, y = (np.zeros(s, t) for s, t in (((5, 33), "u1"), (231, "u1"), ((5, 7), "i4")))
    packed = aligned_copy(packed)
    call(run, x, packed, y)
    with pytest.raises(ValueError, match=r"(?s)x\.shape.*expected 5"):
        call(run, x[:4], packed, y)
    with pytest.raises(TypeError, match=r"y.dtype"):
        call(run, x, packed, y.astype("int64"))


def test_scalars_are_passed_by_value(target):
    """y[i] = i < count ? x[i] * factor : 0, computed by a loop of `count` steps."""
    count, factor = (tirx.Var(name, "int32") for name in ("count", "factor"))
    x = te.placeholder((9,), "int32", name="x")
    y = te.compute((9,), lambda i: te.if_then_else(i < count, x[i] * factor, 0), name="y")
    module = IRModule({"main": te.create_prim_func([x, count, factor, y])})
    tensor = (9,), "int32"
    signature = Signature(
        (
            Argument("x", Role.INPUT, *tensor),
            scalar("count", 0, 9),
            scalar("factor", -100, 100),
            Argument("y", Role.OUTPUT, *tensor),
        )
    )
    run = jit(Function(module, signature), target)
    x, y = np.arange(1, 10, dtype=np.int32), np.zeros(9, np.int32)
    for number, by in ((0, 3), (4, -7), (9, 100)):
        run(tvm_ffi.from_dlpack(x), number, by, tvm_ffi.from_dlpack(y))
        assert y.tolist() == [v * by if v <= number else 0 for v in x.tolist()]
    code = lower({"f": Function(module, signature)}, target).compile().inspect_source("ll")
    (parameters,) = re.findall(r"^define .* @f\((.*)\)", code, re.MULTILINE)
    types = re.findall(r"(?:^|%\w+, )(\w+)", parameters)
    assert types == ["ptr", "i32", "i32", "ptr", "i32"]
