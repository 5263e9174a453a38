"""The dense (fully connected) operator: y[m, n] = sum over k of x[m, k] * w[n, k]."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from lpgen.formats import Format
from lpgen.ops.epilogue import Chain
from lpgen.ops.layers import LAYERS
from lpgen.ops.lhs import INPUT
from lpgen.ops.product import Matrix, Product
from lpgen.ops.product_oracle import rows_per_block
from lpgen.ops.rows import SIZE_OR_RANGE, Range, in_name, largest
from lpgen.ops.words import COUNT, FORMAT, NUMBER, ZERO, ZERO_OR_SHARED, Word


@dataclass(frozen=True)
class Dense(Product):
    """x[m, k] times w[n, k] transposed, to y[m, n]: int32, or what the epilogue makes of it.

    m may be a Range, given at each call. `act` and `weight` are formats (or their texts) of x and
    w; zero points and `epilogue`: see `Product`. layers: a Range of how many bit layers of the
    weights a call may use (`ops.layers`).
    Raises WorkloadError when a size is outside its limits or a result may exceed int32.
    """

    m: int | Range
    n: int
    k: int
    act: Format
    weight: Format
    zero_act: int = 0
    zero_weight: int | str = 0
    outliers: int = 0
    epilogue: Chain = ()
    input: str = "act"
    hadamard: int = 0
    layers: Range | None = None

    kind: ClassVar[str] = "dense"
    ROWS: ClassVar[str] = "m"
    WORDS: ClassVar[dict[str, Word]] = {
        "m": SIZE_OR_RANGE,
        "n": NUMBER,
        "k": NUMBER,
        "act": FORMAT,
        "weight": FORMAT,
        "zero_act": ZERO,
        "zero_weight": ZERO_OR_SHARED,
        "outliers": COUNT,
        "layers": LAYERS,
        "input": INPUT,
        "hadamard": COUNT,
    }

    def __post_init__(self) -> None:
        self._take_rows("m")
        for key in ("n", "k"):
            self._take_sizes(key, 1)
        self._take_sizes("outliers", 0)
        self._take_sizes("hadamard", 0)
        self._check_words()
        self._check_sizes()

    @property
    def label(self) -> str:
        """dense 64x256x512 u8 x s8 -> u8 (m x n x k)"""
        layers = f" layers {self.layers}" if self.layers else ""
        return f"dense {self.m}x{self.n}x{self.k} {self._formats}{layers}"

    @property
    def identifier(self) -> str:
        """dense_64x256x512_u4s2"""
        sizes = f"{in_name(self.m)}x{self.n}x{self.k}"
        layers = f"_layers{in_name(self.layers)}" if self.layers else ""
        return f"dense_{sizes}_{self.act.short}{self.weight.short}{layers}"

    def smallest(self) -> Self:
        """Of one row."""
        return replace(self, m=1, n=32, k=max(32, self.hadamard))

    @cached_property
    def matrix(self) -> Matrix:
        """One matrix product of the operator's own m, n, k."""
        return Matrix(1, largest(self.m), self.n, self.k)

    @property
    def x_extents(self) -> tuple[int, ...]:
        """(m, k)"""
        return (largest(self.m), self.k)

    @property
    def w_shape(self) -> tuple[int, ...]:
        """(n, k); planes of signs one behind the other (`ops.layers`)."""
        return (self.n, self.k * self.planes)

    @property
    def y_extents(self) -> tuple[int, ...]:
        """(m, n)"""
        return (largest(self.m), self.n)

    def _rows(self, x: np.ndarray) -> np.ndarray:
        return x[None]

    def _sums(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        left = x.astype(self._exact_float)
        y = np.empty(self.y_extents, np.int32)
        block = rows_per_block(x.shape[1])
        for n in range(0, self.n, block):
            y[:, n : n + block] = left @ w[n : n + block].astype(self._exact_float).T
        return y
