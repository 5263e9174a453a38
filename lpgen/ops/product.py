"""Products x * w: what dense and conv2d share. Formats, zero points, shapes, the limit of the sums,
the chain of steps behind them."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, NamedTuple, Self

from lpgen.formats import Format
from lpgen.ops import epilogue, hadamard, layers, packed, scales, sparse
from lpgen.ops.epilogue import Bias, Pack, Quantize, Residual, Scale, Threshold, check_zero
from lpgen.ops.epilogue.words import words_of
from lpgen.ops.layers import Layers
from lpgen.ops.lhs import CODED, Lhs
from lpgen.ops.parameter import FLOAT_LIMIT, Parameter, values
from lpgen.ops.product_oracle import ProductOracle
from lpgen.ops.reach import Reach
from lpgen.ops.rows import Range
from lpgen.ops.signature import Argument, Limits, Role, Signature, of_packer, packed_weights, scalar


class Matrix(NamedTuple):
    """An operator seen as `groups` matrix products [m, k] x [k, n] (m: output positions)."""

    groups: int
    m: int
    n: int
    k: int


@dataclass(frozen=True)
class Product(ProductOracle):
    """Base of the products.

    A subclass states its shapes, its `matrix` and `_sums`. It has fields `act`, `weight` (Format),
    their zero points `zero_act` (a value of the format) and `zero_weight` (the same, or "channel"
    or "group": one for each output channel or group of k, a parameter), `outliers`, the most
    non-zero elements of a sparse matrix beside the weights (`ops.sparse`), `input`, how x comes in
    (`ops.lhs`), `hadamard`, the neighbours of a float x that are rotated together (`ops.hadamard`),
    and `epilogue`, the chain of steps behind the sums.

    The sum of an element is that of (x - zero_act) * (w - zero_weight), and of (x - zero_act) times
    the outliers; padding adds nothing.
    """

    FUSES: ClassVar[bool] = True

    def _texts(self) -> dict[str, str]:
        return super()._texts() | words_of(self.epilogue)

    @property
    def needs(self) -> tuple[str, ...]:
        """The kind, scales of groups of k, and bit layers."""
        groups = ("scale=groupN",) if self.group_size else ()
        groups += ("input=f32:groupN",) if self.lhs.group else ()
        return (self.kind, *groups, *(("layers=LOW..HIGH",) if self.layers else ()))

    @property
    def _formats(self) -> str:
        """The formats in a label."""
        return f"{self.act} x {self.weight}" + ("" if self.out == "s32" else f" -> {self.out}")

    @property
    @abstractmethod
    def matrix(self) -> Matrix:
        """The operator as matrix products."""

    @property
    @abstractmethod
    def x_extents(self) -> tuple[int, ...]:
        """Shape of the activations as values."""

    @property
    @abstractmethod
    def w_shape(self) -> tuple[int, ...]:
        """Shape of the weights."""

    @property
    @abstractmethod
    def y_extents(self) -> tuple[int, ...]:
        """Shape of the result as values, and of a residual."""

    @cached_property
    def lhs(self) -> Lhs:
        """How the activations come in."""
        return Lhs(self.input, self.act, self.zero_act, self.hadamard)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the activations as they are given: `x_extents`, or packed."""
        return self.lhs.shape(self.x_extents)

    @property
    def x_dtype(self) -> str:
        """The NumPy dtype of the activations: that of their format, uint8 if packed, or float32."""
        return self.lhs.dtype

    @property
    def signature(self) -> Signature:
        """(x, packed, y); a residual stands before y, and behind it the size that a call has, and
        the number of layers that it uses."""
        by = self.ROWS if self.range else ""
        x = (self.x_shape, self.x_dtype, str(self.lhs), Limits.of_format(self.act))
        arguments = [Argument("x", Role.INPUT, *x, rows=by), packed_weights()]
        if self.residual:
            form = self.residual.values
            tensor = (self.y_extents, form.dtype, str(form), Limits.of_format(form))
            arguments.append(Argument("residual", Role.INPUT, *tensor, rows=by))
        if self.range:
            arguments.append(scalar(by, *self.range))
        if self.layers:
            arguments.append(self.bit_layers.scalar)
        y = Argument("y", Role.OUTPUT, self.y_shape, self.y_dtype, self.out, rows=by)
        return Signature((*arguments, y))

    def packing(self, nbytes: int) -> Signature:
        """(weights, parameters, packed): what packs the weights into so many bytes."""
        return of_packer(self.w_shape, self.weight, self.parameters, nbytes)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of the result as it is stored: `y_extents`, or packed."""
        if not self.pack:
            return self.y_extents
        return packed.packed_shape(self.y_extents, self.y_format, self.pack.layout)

    @property
    def y_dtype(self) -> str:
        """The NumPy dtype of the result: int32, float32, int8 or uint8 (packed: uint8)."""
        return "uint8" if self.pack else epilogue.dtype_of(self.epilogue)

    @property
    def out(self) -> str:
        """What the result is: "s32", "f32" or the text of a format, with its layout if packed."""
        return epilogue.out_of(self.epilogue)

    @property
    def y_format(self) -> Format | None:
        """The format that the result is quantized to, if it is."""
        last = epilogue.find(self.epilogue, Quantize | Threshold)
        return last.format if last else None

    @property
    def pack(self) -> Pack | None:
        """The step that packs the result, if there is one."""
        return epilogue.find(self.epilogue, Pack)

    @property
    def residual(self) -> Residual | None:
        """The step that adds another tensor of shape `y_extents`, if there is one."""
        return epilogue.find(self.epilogue, Residual)

    @property
    def group_size(self) -> int:
        """Neighbours in k that share a scale, 0: all of k."""
        return epilogue.group_size_of(self.epilogue)

    @property
    def sum_group(self) -> int:
        """Neighbours in k whose sum is scaled for itself, as the weights, the activations or both
        want it; 0: all of k."""
        return self.group_size or self.lhs.group

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """Of what has one number for each output channel, or for each of its groups of k."""
        return scales.shape(self.w_shape[0], self.matrix.k, self.group_size)

    @cached_property
    def bit_layers(self) -> Layers:
        """The bit layers of the weights of an operator that has them."""
        return Layers(*self.layers, self.weight)

    @property
    def planes(self) -> int:
        """How many values of `weight` each weight is given as."""
        return self.bit_layers.planes if isinstance(self.layers, Range) else 1

    @property
    def plain(self) -> Self:
        """The operator on integers, without zero points, outliers and epilogue: nearly all of the
        work."""
        bare = {"zero_act": 0, "zero_weight": 0, "outliers": 0, "epilogue": (), "input": "act"}
        bare |= {"layers": None} if self.layers else {}
        return replace(self, **bare, hadamard=0)

    @abstractmethod
    def smallest(self) -> Self:
        """An operator of the same kind and formats with next to nothing to do."""

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """What is given with the weights: name -> shape, dtype and limits."""
        channels, zeros = self.w_shape[0], {}
        if not isinstance(self.zero_weight, int):
            zeros = {"zero_weight": values(self.scale_shape, self.weight)}
        sums = epilogue.Sums(channels, self.scale_shape, self.bound)
        found = zeros | epilogue.parameters_of(self.epilogue, sums)
        if self.layers:
            own = self.bit_layers.parameters(self.scale_shape, found["scale"].short)
            found = own | {name: p for name, p in found.items() if name not in own}
        if self.input == "f32":
            found["input_scale"] = Parameter((1,), "float32", 1 / FLOAT_LIMIT, FLOAT_LIMIT)
        return found | sparse.parameters_of(self.outliers, channels, self.matrix.k)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those on padding included."""
        return math.prod(self.matrix)

    @property
    def ops(self) -> int:
        """Arithmetic operations: two for each multiply-accumulate."""
        return 2 * self.macs

    @property
    def reuse(self) -> int:
        """The rows of x that each weight is multiplied with."""
        return self.matrix.m

    @property
    def weight_bits_total(self) -> int:
        """Bits of all weights when each is stored at exactly its bits."""
        return math.prod(self.w_shape) * self.weight.bits

    @property
    def bound(self) -> int:
        """The largest absolute value a sum could have, by shape, formats, zero points and the
        number of outliers."""
        return self._reach.bound

    @property
    def _reach(self) -> Reach:
        zeros = (self.zero_act, self.zero_weight)
        return Reach(self.matrix.k, self.act, self.weight, *zeros, self.outliers)

    # The checks that all products make when they are created.

    def _check_words(self) -> None:
        """Formats, zero points, epilogue, input, scales and outliers that contradict each other."""
        self._take_format("act")
        self._take_format("weight")
        self._set("epilogue", tuple(self.epilogue))
        rows, zero, size = len(self.x_extents) == 2, self.zero_weight, 0
        reason = check_zero("zero_act", self.act, self.zero_act)
        if zero not in ("channel", "group"):
            reason = reason or check_zero("zero_weight", self.weight, zero)
        if reason := reason or epilogue.check_chain(self.epilogue):
            self._fail(reason)
        size, scaled = self.group_size, bool(epilogue.find(self.epilogue, Scale))
        reason = self.lhs.check(rows, scaled)
        if self.input == CODED and self.range:
            reason = reason or f"input={CODED} is for one number of rows, not {self.range}"
        served = rows or bool(self.layers)
        reason = reason or scales.check(size, self.lhs.group, zero, self.weight, served)
        if self.lhs.group and epilogue.find(self.epilogue, Bias) == Bias("s32"):
            reason = reason or f"bias=s32 is for sums over all of k, not with input={self.input}"
        reason = reason or hadamard.check(self.hadamard, self.lhs.real, *self._neighbours)
        reason = reason or sparse.check(self.outliers, self.w_shape, self.sum_group)
        if self.layers:
            beside = (zero, self.outliers, self.lhs.group)
            reason = reason or layers.check(self.layers, self.weight, size, *beside)
            reason = reason or layers.check_act(self.layers, self.act, self.zero_act)
        if reason:
            self._fail(reason)

    @property
    def _neighbours(self) -> tuple[int, str]:
        """How many neighbours in x are neighbours in k, and what that is called."""
        if self.kind == "dense":
            return self.matrix.k, "k"
        return self.w_shape[-1], "ic" if self.groups == 1 else "ic / groups"

    def _check_sizes(self) -> None:
        """No exact result may leave int32."""
        self._check_elements(x=self.x_extents, w=self.w_shape, y=self.y_extents)
        if reason := self._reach.check():
            self._fail(reason)
