"""Holding other libraries to the instructions of a target that is less than this machine's CPU.

oneDNN obeys an environment variable (docs: "CPU Dispatcher Control"). AMX is refused to the whole
process: Linux grants its tile registers on request (arch_prctl, ARCH_REQ_XCOMP_PERM), and a seccomp
filter that answers the request with EPERM makes every library take what it takes on a CPU without
(Documentation/arch/x86/xstate.rst, Documentation/userspace-api/seccomp_filter.rst of Linux).
Libraries have no common switch for other instructions.
"""

import ctypes
import os
import struct
import sys

from lpgen.target import Target, detect

# The level of a target -> oneDNN's name of that level.
_ONEDNN = {
    "generic": "SSE41",
    "sse4": "SSE41",
    "avx2": "AVX2",
    "avxvnni": "AVX2_VNNI",
    "avxvnniint8": "AVX2_VNNI_2",
    "avx512bw": "AVX512_CORE",
    "avx512vnni": "AVX512_CORE_VNNI",
}
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM = 158, 0x1023
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL_WITH_EPERM = 0x7FFF0000, 0x00050001
_NUMBER_AT, _ARGUMENT_AT = 0, 16


def restraint(target: Target) -> tuple[dict[str, str], bool, str]:
    """(environment, refuse AMX?, what was done in words) that hold libraries to `target`."""
    level, best = target.level, detect().level
    if level == best or level not in _ONEDNN:
        return {}, False, "every library uses what the CPU has"
    words = f"oneDNN held to {_ONEDNN[level]}"
    refuse = best == "amx"
    if refuse:
        words += ", AMX refused to all"
    if level != "avx512vnni":
        words += f"; the others have no switch and use more than {target.name} has"
    return {"ONEDNN_MAX_CPU_ISA": _ONEDNN[level]}, refuse, words


def refuse_amx() -> None:
    """Let no request for AMX succeed in this thread and those it starts, for good.

    Raises OSError where the system cannot.
    """
    if sys.platform != "linux":
        raise OSError("seccomp filters are Linux's")
    program = b"".join(
        struct.pack("HBBI", code, if_true, if_false, value)
        for code, if_true, if_false, value in (
            (_LOAD, 0, 0, _NUMBER_AT),
            (_JUMP_IF_EQUAL, 0, 3, _SYS_ARCH_PRCTL),
            (_LOAD, 0, 0, _ARGUMENT_AT),
            (_JUMP_IF_EQUAL, 0, 1, _ARCH_REQ_XCOMP_PERM),
            (_RETURN, 0, 0, _FAIL_WITH_EPERM),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    memory = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(memory))
    filter_program = ctypes.create_string_buffer(header, len(header))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    address = ctypes.addressof(filter_program)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, address, 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"AMX cannot be refused: {os.strerror(number)}")
