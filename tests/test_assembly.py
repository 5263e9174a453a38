from lpgen.build.assembly import Loop, functions, hot_loops, innermost_loops

ASSEMBLY = """\
	.text
	.type	kernel,@function
kernel:
.Lfunc_begin0:
	.cfi_startproc
	pushq	%rbx
.LBB0_1:                                # =>This Loop Header: Depth=1
	movq	%rax, %rcx
.LBB0_2:                                #   Parent Loop
.Ltmp1:
	vpdpbusd	(%rsi){1to16}, %zmm1, %zmm0 # a comment
	vpdpbusd	%zmm2, %zmm1, %zmm3
	addq	$64, %rcx
	jne	.LBB0_2
	je	.LBB0_4
	decl	%eax
	jne	.LBB0_1
.LBB0_4:
	addl	$1, %edx
	jb	.LBB0_4
	retq
.Lfunc_end0:
	.type	other,@function
other:
	vpmaddwd	%ymm1, %ymm2, %ymm3
	retq
.Lfunc_end1:
	.type	table,@object
table:
	.long	1
"""

RISCV = """\
	.type	kernel,@function
kernel:
	vwmacc.vx	v8, a4, v24
.LBB0_1:
	csrr	a0, vlenb
	mul	a0, a0, a1                      # where the stack holds v6
	vs1r.v	v6, (a0)                        # vscale x 8-byte Folded Spill
	vle8.v	v26, (a2)
	vwmaccsu.vx	v8, a4, v26
	vrgather.vv	v12, v13, v26
	bne	a2, a7, .LBB0_1
.LBB0_2:
	vcpop.v	v11, v10
	vse32.v	v8, (a0)
	bgtz	a4, .LBB0_2
	ret
.Lfunc_end0:
"""


def test_functions_are_cut_out_of_directives_and_comments():
    found = functions(ASSEMBLY)
    assert list(found) == ["kernel", "other"]
    assert found["other"] == ["\tvpmaddwd\t%ymm1, %ymm2, %ymm3", "\tretq"]
    assert found["kernel"][:3] == ["\tpushq\t%rbx", ".LBB0_1:", "\tmovq\t%rax, %rcx"]
    assert not any("#" in line or ".Ltmp" in line for line in found["kernel"])


def test_innermost_loops_end_with_the_jump_back():
    loops = innermost_loops("kernel", functions(ASSEMBLY)["kernel"])
    assert [loop.lines[0] for loop in loops] == [".LBB0_2:", ".LBB0_4:"]
    assert loops[0].lines[-1] == "\tjne\t.LBB0_2"
    assert [loop.key_instructions for loop in loops] == [2, 0]


def test_a_loop_with_several_jumps_back_ends_with_the_last():
    lines = [".LBB0_1:", "\tjne\t.LBB0_1", "\tpmulld\t%xmm0, %xmm1", "\tjb\t.LBB0_1", "\tretq"]
    (loop,) = innermost_loops("f", lines)
    assert loop.lines == lines[:4]
    assert loop.key_instructions == 1


def test_hot_loops_hold_multiplications():
    (loop,) = hot_loops(ASSEMBLY)
    assert loop.function == "kernel"
    assert loop.lines[0] == ".LBB0_2:"


def test_without_a_loop_the_body_is_shown():
    straight = ASSEMBLY[ASSEMBLY.index("	.type	other") :]
    copy = straight.replace("other", "__tvm_ffi_main")
    (loop,) = hot_loops(copy + straight)
    assert loop == ("other", functions(ASSEMBLY)["other"], 1)
    assert hot_loops("") == []


def test_a_loop_that_asks_for_memory_in_advance():
    loop = ["\tprefetcht0\t4096(%rsi)", "\tvmovdqu64\t(%rsi), %zmm1", "\tjne\t.LBB0_0"]
    assert Loop("kernel", loop, 0).asks_ahead
    assert not Loop("kernel", loop[1:], 0).asks_ahead
    assert Loop("kernel", ["\tprfm\tpldl1keep, [x0, #4096]"], 0).asks_ahead


def test_loops_of_risc_v():
    products, results = hot_loops(RISCV)
    assert products.lines[0] == ".LBB0_1:"
    assert products.lines[-1] == "\tbne\ta2, a7, .LBB0_1"
    assert (products.key_instructions, products.stores) == (2, 0)  # the spilled vector is none
    assert (results.key_instructions, results.stores) == (1, 1)
