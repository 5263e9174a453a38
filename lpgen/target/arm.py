"""Arm: 64-bit CPUs (AArch64) and 32-bit ones (ARMv7 with NEON), and the extensions of each.

Listed are the vector extensions that kernels ask for or LLVM may choose by itself for the row's CPU
(LLVM's AArch64Processors.td and ARMProcessors.td list all). SVE is left out and LLVM told so:
kernels of one vector length serve all CPUs, and no CPU here has SVE vectors that are wider than two
of NEON's (docs/arm.md). Numbers of implementers and parts: MIDR_EL1 in the manuals of the cores,
as Linux lists them (arch/arm64/include/asm/cputype.h).
"""

from lpgen.target.architecture import Architecture, Row

NEON = ("neon",)
DOTPROD = (*NEON, "fullfp16", "rdm", "dotprod")
ARMV8_4 = (*DOTPROD, "fp16fml", "complxnum")
I8MM = (*ARMV8_4, "i8mm", "bf16")
V8_2 = ("+v8.2a", "+fullfp16", "+rdm", "+dotprod")
V8_4 = ("+v8.4a", "+fullfp16", "+fp16fml", "+complxnum", "+i8mm", "+bf16")

ARM, APPLE = "0x41", "0x61"
M1 = (0x022, 0x023, 0x024, 0x025, 0x028, 0x029)

LIKE_A76 = {"emulated": "cortex-a76", "cores": 4}
LATEST = {"emulated": "max,sve=off"}
SERVER = {**LATEST, "mattr": ("-sve",)}


def _core(
    name: str,
    features: tuple[str, ...],
    caches: tuple[int, int, int],
    *parts: int,
    implementer: str = ARM,
    emulated: str = "",
    **more,
) -> Row:
    """The row of cores that LLVM knows by its name, and the emulator by that or as `emulated`."""
    known = tuple((implementer, number) for number in parts)
    return Row(name, name, features, *caches, parts=known, emulated=emulated or name, **more)


# In order of ability: detection takes the last row that fits. Caches in KiB: L1d, L2 per core, L3.
# A row's `parts` are the cores it is for, and such as are much like it (Cortex-A35, A57, A73, A77).
_ROWS = (
    Row("aarch64", "generic", NEON, 32, 512, 0, cores=4, emulated="cortex-a53"),
    _core("cortex-a53", NEON, (32, 512, 0), 0xD03, 0xD04, cores=4, aliases=("rpi3",)),
    _core("cortex-a72", NEON, (32, 1024, 0), 0xD07, 0xD08, 0xD09, cores=4, aliases=("rpi4",)),
    Row("dotprod", "generic", DOTPROD, 64, 512, 2048, mattr=V8_2, **LIKE_A76),
    _core("cortex-a55", DOTPROD, (32, 128, 1024), 0xD05, **LIKE_A76),
    _core(
        "cortex-a76", DOTPROD, (64, 512, 2048), 0xD0A, 0xD0B, 0xD0D, aliases=("rpi5",), **LIKE_A76
    ),
    _core("neoverse-n1", DOTPROD, (64, 1024, 32768), 0xD0C, cores=64),
    _core("apple-m1", ARMV8_4, (128, 3072, 8192), *M1, implementer=APPLE, cores=4, **LATEST),
    Row("i8mm", "generic", I8MM, 64, 1024, 32768, cores=16, mattr=V8_4, **LATEST),
    _core("neoverse-v1", I8MM, (64, 1024, 32768), 0xD40, cores=32, **SERVER),
    _core("neoverse-n2", I8MM, (64, 1024, 32768), 0xD49, cores=64, **SERVER),
    _core("neoverse-v2", I8MM, (64, 2048, 116736), 0xD4F, cores=72, **SERVER),
)

ARM64 = Architecture(
    name="arm",
    machines=("aarch64", "arm64"),
    triple="aarch64-linux-gnu",
    rows=_ROWS,
    families={"neon": "arm"},
    levels={"i8mm": "i8mm", "dotprod": "dotprod", "neon": "neon"},
    linux={
        "asimd": "neon",
        "asimdhp": "fullfp16",
        "asimdrdm": "rdm",
        "asimddp": "dotprod",
        "asimdfhm": "fp16fml",
        "fcma": "complxnum",
    },
    emulator="qemu-aarch64",
)

VFP4 = ("neon", "vfp4", "hwdiv-arm")

_ROWS_OF_32_BITS = (
    Row("armv7", "generic", NEON, 32, 512, 0, cores=4, mattr=("+neon",), emulated="cortex-a9"),
    _core("cortex-a7", VFP4, (32, 512, 0), 0xC07, cores=4, aliases=("rpi2",)),
)

ARMV7 = Architecture(
    name="armv7",
    machines=("armv7l", "armv8l"),
    triple="arm-linux-gnueabihf",
    abi="hard",
    rows=_ROWS_OF_32_BITS,
    families={"neon": "arm"},
    levels={"neon": "neon"},
    linux={"vfpv4": "vfp4", "idiva": "hwdiv-arm"},
    emulator="qemu-arm",
    fma="vfp4",
)
