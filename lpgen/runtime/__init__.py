"""Loading and calling exported libraries, without the compiler.

    lib = lpgen.runtime.load("lib.so")        # lib.kernels: the canonical names inside
    kernel = lib["dense m=1024 n=1024 k=1024 act=u2 weight=s2 out=s32"]
    packed = kernel.pack_weights(w)           # w: one value per element, [n, k] or OHWI
    y = kernel(x, packed)                     # x: one value per byte, [m, k] or NHWC
    y = lib.network(x)                        # of a library that `lpgen compile` made
    y = lib.variants().within(800e-6)(x)      # the best of its plans and bit layers that is so fast

It needs NumPy and apache-tvm-ffi, and of lpgen only `lpgen.errors`.
"""

from lpgen.runtime.arguments import Argument
from lpgen.runtime.kernel import Kernel
from lpgen.runtime.library import Library, load
from lpgen.runtime.network import Network, Walk
from lpgen.runtime.steps import Step, Tensor
from lpgen.runtime.variants import Variant, Variants
from lpgen.runtime.weights import PackedWeights

__all__ = [
    "Argument",
    "Kernel",
    "Library",
    "Network",
    "PackedWeights",
    "Step",
    "Tensor",
    "Variant",
    "Variants",
    "Walk",
    "load",
]
