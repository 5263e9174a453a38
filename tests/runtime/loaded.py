"""Operators whose kernels the tests of the runtime load, and tensors of other libraries."""

import numpy as np

from lpgen.ops import Dense

BYTES = Dense(5, 7, 33, "u8", "s8")
BIPOLAR = Dense(5, 7, 33, "s4", "b2")
LARGE = Dense(20, 30, 9600, "u2", "t2")


class Tensor:
    """Somebody's array: DLPack in and out, and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Refusing:
    """A tensor that cannot be exported, as torch says it: the reason, and then many lines more."""

    dtype = "float7"

    def __dlpack__(self, **options):
        raise RuntimeError("no storage\nException raised from\nframe #0: ...")

    def __dlpack_device__(self):
        return (1, 0)


class Namespaced(Tensor):
    """The same with the array API's way to make more of it."""

    def __array_namespace__(self):
        return Namespaced

    from_dlpack = classmethod(lambda cls, y: cls(np.from_dlpack(y)))
