"""x86-64: its CPUs, the extensions of each, and what they bring.

Extensions of a level are what kernels ask for, and the vector and bit extensions that LLVM may
choose by itself for the row's CPU (LLVM's X86.td lists them per CPU). Left out: system and
cryptographic extensions, which only explicit intrinsics reach.
"""

import ctypes
import sys

from lpgen.target.architecture import Architecture, Row

SSE2 = ("sse", "sse2")
SSE4 = (*SSE2, "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt")
AVX2 = (*SSE4, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
AVXVNNI = (*AVX2, "avxvnni", "gfni")
AVXVNNIINT8 = (*AVXVNNI, "avxifma", "avxneconvert", "avxvnniint8")
AVX512BW = (*AVX2, "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl")
AVX512VNNI = (*AVX512BW, "avx512vnni")
ICELAKE = (
    *AVX512VNNI,
    *("avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512bitalg", "avx512vpopcntdq", "gfni"),
)
AMX = ("amx-tile", "amx-int8", "amx-bf16")
SAPPHIRERAPIDS = (*ICELAKE, "avxvnni", "avx512bf16", "avx512fp16", *AMX)
GRANITERAPIDS = (*SAPPHIRERAPIDS, "amx-fp16")
TIGERLAKE = (*ICELAKE, "avx512vp2intersect")
ZEN3 = (*AVX2, "sse4a")
ZEN4 = (*ICELAKE, "avx512bf16", "sse4a")
ZEN5 = (*ZEN4, "avxvnni", "avx512vp2intersect")

AMD = "AuthenticAMD"

# In order of ability: detection takes the last row that fits. Caches in KiB: L1d, L2 per core, L3.
_ROWS = (
    Row("generic", "x86-64", SSE2, 32, 256, 4096, cores=4),
    Row("sse4", "nehalem", SSE4, 32, 256, 8192, cores=4),
    Row("avx2", "haswell", AVX2, 32, 256, 8192, cores=4),
    Row("zen3", "znver3", ZEN3, 32, 512, 32768, cores=8, vendor=AMD),
    Row("alderlake", "alderlake", AVXVNNI, 48, 1280, 30720, cores=8),
    Row("arrowlake", "arrowlake", AVXVNNIINT8, 48, 3072, 36864, cores=8),
    Row("avx512bw", "skylake-avx512", AVX512BW, 32, 1024, 25344, cores=18),
    Row("avx512vnni", "cascadelake", AVX512VNNI, 32, 1024, 36608, cores=26),
    Row("cooperlake", "cooperlake", (*AVX512VNNI, "avx512bf16"), 32, 1024, 39424, cores=28),
    Row("icelake", "icelake-server", ICELAKE, 48, 1280, 55296, cores=36),
    Row("tigerlake", "tigerlake", TIGERLAKE, 48, 1280, 24576, cores=8),
    Row("zen4", "znver4", ZEN4, 32, 1024, 32768, cores=8, vendor=AMD),
    Row("zen5", "znver5", ZEN5, 48, 1024, 32768, cores=8, vendor=AMD),
    Row("sapphirerapids", "sapphirerapids", SAPPHIRERAPIDS, 48, 2048, 107520, cores=56),
    Row("graniterapids", "graniterapids", GRANITERAPIDS, 48, 2048, 344064, cores=86),
)


def amx_permitted(features: frozenset[str] | set[str]) -> bool:
    """Whether a CPU with `features` may run AMX tile instructions in this process.

    Linux grants the tile registers per process, on request: arch_prctl(ARCH_REQ_XCOMP_PERM) with
    XFEATURE_XTILEDATA (Documentation/arch/x86/xstate.rst). Asking again is harmless.
    """
    if not {"amx-tile", "amx-int8"} <= features or sys.platform != "linux":
        return False
    sys_arch_prctl, arch_req_xcomp_perm, xfeature_xtiledata = 158, 0x1023, 18
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    arguments = (ctypes.c_long(arch_req_xcomp_perm), ctypes.c_long(xfeature_xtiledata))
    return syscall(ctypes.c_long(sys_arch_prctl), *arguments) == 0


def _permitted(features: frozenset[str]) -> frozenset[str]:
    """`features`, without AMX unless the system grants it."""
    if amx_permitted(features):
        return features
    return frozenset(feature for feature in features if not feature.startswith("amx-"))


X86 = Architecture(
    name="x86",
    machines=("x86_64", "amd64"),
    triple="x86_64-linux-gnu",
    rows=_ROWS,
    families={"amx-int8": "amx", "sse4.1": "x86"},
    levels={
        "amx-int8": "amx",
        "avx512vnni": "avx512vnni",
        "avx512bw": "avx512bw",
        "avxvnniint8": "avxvnniint8",
        "avxvnni": "avxvnni",
        "avx2": "avx2",
        "sse4.1": "sse4",
    },
    linux={
        "pni": "sse3",
        "sse4_1": "sse4.1",
        "sse4_2": "sse4.2",
        "abm": "lzcnt",
        "bmi1": "bmi",
        "avx512_vnni": "avx512vnni",
        "avx512_vbmi2": "avx512vbmi2",
        "avx512_bitalg": "avx512bitalg",
        "avx512_vpopcntdq": "avx512vpopcntdq",
        "avx512_bf16": "avx512bf16",
        "avx512_vp2intersect": "avx512vp2intersect",
        "avx512_fp16": "avx512fp16",
        "avx_vnni": "avxvnni",
        "avx_vnni_int8": "avxvnniint8",
        "avx_ifma": "avxifma",
        "avx_ne_convert": "avxneconvert",
    },
    permitted=_permitted,
    fma="fma",
)
