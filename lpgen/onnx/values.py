"""What an edge of a graph stands for while it becomes a network: numbers that are known, a tensor
in memory, a function of one, or a result whose last step waits for what comes behind it."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from lpgen.formats import Format
from lpgen.ops.elementwise import quantized
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    from lpgen.onnx.lowering import Lowering


class Scale(NamedTuple):
    """How codes stand for real numbers: (code - zero) * scale, float32; arrays along `axis` of a
    constant tensor where each place on it has its own, else single numbers."""

    scale: np.ndarray
    zero: np.ndarray
    axis: int = 0

    @property
    def single(self) -> bool:
        """Whether there is one scale for the whole tensor."""
        return self.scale.size == 1


class Blocks(NamedTuple):
    """Codes of a matrix whose neighbours along one axis share a scale: codes [n, k], values of
    `form`, scale: float32 [n, groups of `size`]; axis: where k is in the matrix itself; zero: their
    zero points, int32 [n, groups], None: 0."""

    codes: np.ndarray
    scale: np.ndarray
    size: int
    form: Format
    axis: int
    zero: np.ndarray | None = None

    def less(self, zero: np.ndarray) -> Blocks:
        """With these zero points: one for all is taken off the codes."""
        if (zero != zero.flat[0]).any():
            return self._replace(zero=zero)
        codes = self.codes.astype(np.int16) - zero.flat[0]
        if codes.min() < -128 or codes.max() > 127:
            return self._replace(zero=zero) if zero.any() else self
        form = Format.of_values(codes)
        return self._replace(codes=codes.astype(form.dtype), form=form)


@dataclass(frozen=True)
class Constant:
    """Numbers that are known. codes, scale, form: what they were made of by a DequantizeLinear;
    codes alone: by a Cast; blocks: what a matrix was made of with scales of neighbours."""

    array: np.ndarray
    codes: np.ndarray | None = None
    scale: Scale | None = None
    form: Format | None = None
    blocks: Blocks | None = None

    @property
    def type(self) -> TensorType:
        """Shape and dtype."""
        return TensorType(self.array.shape, self.array.dtype.name)


@dataclass(frozen=True)
class Stored:
    """A tensor in memory.

    type: as ONNX sees it; order: its axes as they lie in memory, the contiguous one last. form: the
    format of its values, None where the dtype says it.
    """

    name: str
    type: TensorType
    order: tuple[int, ...]
    form: Format | None = None

    @property
    def memory(self) -> TensorType:
        """The type of what lies in memory."""
        return TensorType(tuple(self.type.shape[axis] for axis in self.order), self.type.dtype)

    def lies(self, order: Sequence[int]) -> bool:
        """Whether its elements lie in memory as if its axes had this order."""
        shape = self.type.shape
        mine = [axis for axis in self.order if shape[axis] > 1]
        return mine == [axis for axis in order if shape[axis] > 1]

    @property
    def natural(self) -> bool:
        """Whether it lies in memory as ONNX has it."""
        return self.lies(range(len(self.order)))


@dataclass(frozen=True)
class Recoded:
    """Codes that are a function of those of a tensor, table[code - lowest]: a step makes them in
    the tensor `name` as soon as something reads them that is no table itself."""

    codes: Stored
    table: np.ndarray
    form: Format
    name: str

    @property
    def type(self) -> TensorType:
        """Shape and dtype of the codes."""
        return TensorType(self.codes.type.shape, self.form.dtype)


@dataclass(frozen=True)
class Mapped:
    """A float32 function of each code of a tensor: table[code - lowest].

    scale: where it is DequantizeLinear with one scale and zero point; made_of: where it is that of
    codes that no step makes yet.
    """

    codes: Stored
    table: np.ndarray
    scale: Scale | None = None
    made_of: tuple[Recoded, Scale] | None = None

    @property
    def type(self) -> TensorType:
        """Shape and dtype of what it gives."""
        return TensorType(self.codes.type.shape, "float32")

    @cached_property
    def form(self) -> Format:
        """The format of the codes."""
        assert self.codes.form
        return self.codes.form

    @classmethod
    def of(cls, codes: Stored | Recoded, scale: Scale) -> Mapped:
        """DequantizeLinear of codes."""
        assert codes.form
        zero = scale.zero.reshape(()).astype(np.int32)
        if isinstance(codes, Recoded):
            table = (codes.table.astype(np.int32) - zero).astype(np.float32)
            return cls(codes.codes, table * scale.scale.reshape(()), None, (codes, scale))
        every = np.arange(codes.form.min, codes.form.max + 1, dtype=np.int32)
        table = (every - zero).astype(np.float32) * scale.scale.reshape(())
        return cls(codes, table, scale)

    def quantized(self, to: Target) -> np.ndarray:
        """The codes of another format that stand for its values."""
        with np.errstate(all="ignore"):
            return quantized(self.table / to.scale, to.zero, to.form)


class Layered(NamedTuple):
    """How float weights [n, k] become bit layers: count: how many a call uses, None: that is an
    input of the network; group: neighbours in k that share what these have, 0: all; make: what
    gives (format, number of layers, weights, parameters) of weights."""

    count: int | None
    group: int
    make: Callable[[np.ndarray], tuple[Format, int, np.ndarray, dict[str, np.ndarray]]]


class Activations(NamedTuple):
    """How a product quantizes activations of float32 in its kernel: the format; how they come in,
    as in a workload: f32:row, f32:group32; blocks of k that are rotated before, 0: none.

    layers: what float weights become; None: they stay.
    """

    form: Format
    input: str = "f32:row"
    hadamard: int = 0
    layers: Layered | None = None


class Target(NamedTuple):
    """What a QuantizeLinear with one scale makes: scale as float32, zero point as int32."""

    form: Format
    dtype: str
    scale: np.float32
    zero: np.int32

    @property
    def of_codes(self) -> Scale:
        """How its codes stand for real numbers."""
        return Scale(np.float32([self.scale]), np.array([self.zero], self.form.dtype))

    def within(self, low: int, high: int) -> Target:
        """The same in the format of the fewest bits, where all codes are from low to high."""
        form = self.form.within(low, high)
        return self._replace(form=form) if form.min <= self.zero <= form.max else self

    def code(self, real: float) -> int:
        """The code for a real number; bounds are numbers."""
        return int(quantized(np.float32([real]) / self.scale, self.zero, self.form)[0])


@dataclass(frozen=True, eq=False, repr=False)
class Trail:
    """A node, by name, and those in front of it: kept as a list with branches, since a copy for
    each node of a long chain would take the square of its length."""

    name: str
    before: tuple[Trail, ...] = ()

    def names(self) -> list[str]:
        """All of them, each once, those in front first."""
        found, open_ = [], [self]
        while open_:
            trail = open_.pop()
            found.append(trail.name)
            open_ += trail.before
        return list(dict.fromkeys(reversed(found)))


@dataclass(frozen=True)
class Pending(abc.ABC):
    """A float32 result that becomes a step as soon as it is known what it has to be: quantized, as
    most are, or real. type: of the real one; low, high: its bounds, as Relu and Clip set them.
    costly: whether the step had better be one; nodes: those that it is the result of."""

    costly: ClassVar[bool] = False

    type: TensorType
    low: float
    high: float
    nodes: Trail | None = field(default=None, kw_only=True, compare=False)

    @abc.abstractmethod
    def quantized(self, lowering: Lowering, name: str, to: Target) -> Stored:
        """The step that gives codes."""

    @abc.abstractmethod
    def real(self, lowering: Lowering, name: str) -> Stored:
        """The step that gives float32."""


Value = Constant | Stored | Recoded | Mapped | Pending
