"""RISC-V: 64-bit CPUs of what Linux asks for (rv64gc), and those with the vector extension V 1.0.

A kernel's vectors have one length: 128 bits, which every CPU with V has at least, or 256. Listed
are the extensions that kernels ask for or LLVM may choose by itself, of vectors and bits; not those
that V brings along (LLVM's RISCVFeatures.td). How long the vectors are Linux does not list; the CPU
itself tells (`vector_bits`).
"""

import ctypes
import mmap

from lpgen.target.architecture import Architecture, Row

RV64GC = ("+m", "+a", "+f", "+d", "+c")
V = ("v", "zvl128b")
V256 = (*V, "zvl256b")
BITS = ("zba", "zbb", "zbs")
ZVBB = ("zvbb",)

_ADDED = tuple(f"+{name}" for name in (*BITS, *ZVBB))
_EMULATED = ",".join(("", *(f"{name}=true" for name in (*BITS, *ZVBB))))


def _with_v(name: str, features: tuple[str, ...], caches: tuple[int, ...], **more) -> Row:
    bits, added = (256 if V256[-1] in features else 128), _ADDED if ZVBB[0] in features else ()
    mattr = (*RV64GC, "+v", *(("+zvl256b",) if bits == 256 else ()), *added)
    emulated = f"rv64,v=true,vlen={bits},vext_spec=v1.0{_EMULATED if added else ''}"
    return Row(name, "generic-rv64", features, *caches, mattr=mattr, emulated=emulated, **more)


# In order of ability: detection takes the last row that fits. Caches in KiB: L1d, L2 per core, L3.
_ROWS = (
    Row("riscv64", "generic-rv64", (), 32, 512, 0, cores=4, mattr=RV64GC, emulated="rv64"),
    _with_v("rvv", V, (32, 512, 0), cores=4),
    _with_v("rva23", (*V, *BITS, *ZVBB), (64, 1024, 4096), cores=4),
    _with_v("rvv256", V256, (32, 512, 0), cores=4),
    _with_v("rva23-v256", (*V256, *BITS, *ZVBB), (64, 1024, 4096), cores=8),
)

LONGEST = 1024
"""Bits of a vector beyond which `vrgather` finds what a kernel takes to be outside of a table."""

_READ_VLENB = bytes.fromhex("732520c2 67800000")
"""csrr a0, vlenb; ret"""


def vector_bits() -> int:
    """Bits of a vector register of this CPU, one of RISC-V with V; 128 where nothing tells.

    A register that programs may read holds it; no file does.
    """
    size = mmap.PAGESIZE
    try:
        memory = mmap.mmap(-1, size, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:  # a system that lets no process write what it runs
        return 128
    memory.write(_READ_VLENB)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    ctypes.CDLL(None).__riscv_flush_icache(*map(ctypes.c_void_p, (start, start + size, 0)))
    return 8 * ctypes.CFUNCTYPE(ctypes.c_long)(start)()


def _permitted(features: frozenset[str]) -> frozenset[str]:
    """`features`, and what the length of vectors adds; nothing of V where they are too long."""
    if "v" not in features:
        return features
    bits = vector_bits()
    if bits > LONGEST:
        return frozenset(name for name in features if not name.startswith(("v", "zv")))
    return features | {"zvl128b"} | ({"zvl256b"} if bits >= 256 else set())


RISCV64 = Architecture(
    name="riscv64",
    machines=("riscv64",),
    triple="riscv64-linux-gnu",
    abi="lp64d",
    rows=_ROWS,
    families={"v": "riscv"},
    levels={"zvl256b": "rvv256", "v": "rvv"},
    permitted=_permitted,
    emulator="qemu-riscv64",
)
