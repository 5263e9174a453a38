"""What all operators share: words and their texts, shapes, inputs, the limits of int32."""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, NoReturn, Self

import numpy as np

from lpgen.errors import FormatError, WorkloadError
from lpgen.formats import REAL, Format, Real, as_array
from lpgen.ops import checks, epilogue, groups, inputs, outliers, packed, parameters
from lpgen.ops.epilogue import Pack, Quantize, Residual
from lpgen.ops.epilogue_words import words_of
from lpgen.ops.examples import Examples
from lpgen.ops.parameters import Parameter
from lpgen.ops.thresholds import Threshold
from lpgen.ops.words import MAX_ELEMENTS, Word


class Matrix(NamedTuple):
    """An operator seen as `groups` matrix products [m, k] x [k, n] (m: output positions)."""

    groups: int
    m: int
    n: int
    k: int


@dataclass(frozen=True)
class Operator(Examples):
    """Base of the operators: frozen dataclasses whose fields are the words of the workload.

    A subclass states its `kind`, its `WORDS` (one per field but `epilogue`, in canonical order),
    its shapes, its `matrix` and `_sums`. It has fields `act`, `weight` (Format), their zero points
    `zero_act` (a value of the format) and `zero_weight` (the same, or "channel" or "group": one for
    each output channel or group of k, a parameter), `outliers`, the most non-zero elements of a
    sparse matrix beside the weights (`lpgen.ops.outliers`), and `epilogue`, the chain of steps
    behind the sums.

    The sum of an element is that of (x - zero_act) * (w - zero_weight), and of (x - zero_act) times
    the outliers; padding adds nothing.
    """

    kind: ClassVar[str]
    WORDS: ClassVar[dict[str, Word]]
    # Whether a workload may have the words of an epilogue.
    FUSES: ClassVar[bool] = True

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The fields that a workload may leave out, with their values."""
        return {f.name: f.default for f in fields(cls) if f.default is not MISSING}

    @cached_property
    def name(self) -> str:
        """The canonical workload text; `ops.workload.parse` reads it back to an equal operator."""
        usual = self.defaults()
        words = {
            key: word.write(getattr(self, key))
            for key, word in self.WORDS.items()
            if not (word.quiet and getattr(self, key) == usual[key])
        }
        words |= words_of(self.epilogue)
        return " ".join([self.kind, *(f"{key}={text}" for key, text in words.items())])

    def __str__(self) -> str:
        return self.name

    @property
    def matrix(self) -> Matrix:
        """The operator as matrix products."""
        raise NotImplementedError

    @property
    def x_extents(self) -> tuple[int, ...]:
        """Shape of the activations as values."""
        raise NotImplementedError

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the activations as they are given: `x_extents`, or packed."""
        layout = inputs.layout_of(self)
        return packed.packed_shape(self.x_extents, self.act, layout) if layout else self.x_extents

    @property
    def w_shape(self) -> tuple[int, ...]:
        """Shape of the weights."""
        raise NotImplementedError

    @property
    def y_extents(self) -> tuple[int, ...]:
        """Shape of the result as values, and of a residual."""
        raise NotImplementedError

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of the result as it is stored: `y_extents`, or packed."""
        if not self.pack:
            return self.y_extents
        return packed.packed_shape(self.y_extents, self.y_format, self.pack.layout)

    @property
    def pack(self) -> Pack | None:
        """The step that packs the result, if there is one."""
        return epilogue.find(self.epilogue, Pack)

    @property
    def y_format(self) -> Format | None:
        """The format that the result is quantized to, if it is."""
        last = epilogue.find(self.epilogue, Quantize | Threshold)
        return last.format if last else None

    @property
    def out(self) -> str:
        """What the result is: "s32", "f32" or the text of a format."""
        return epilogue.out_of(self.epilogue)

    @property
    def x_dtype(self) -> str:
        """The NumPy dtype of the activations: that of their format, uint8 if packed, or float32."""
        if inputs.is_float(self):
            return "float32"
        return "uint8" if inputs.layout_of(self) else self.act.dtype

    @property
    def y_dtype(self) -> str:
        """The NumPy dtype of the result: int32, float32, int8 or uint8 (packed: uint8)."""
        return "uint8" if self.pack else epilogue.dtype_of(self.epilogue)

    @property
    def group(self) -> int:
        """Neighbours in k that share a scale, 0: all of k."""
        return epilogue.group_of(self.epilogue)

    @property
    def plain(self) -> Self:
        """The operator on integers, without zero points, outliers and epilogue: nearly all of the
        work."""
        return replace(self, zero_act=0, zero_weight=0, outliers=0, epilogue=(), input="act")

    @property
    def residual(self) -> Residual | None:
        """The step that adds another tensor of shape `y_extents`, if there is one."""
        return epilogue.find(self.epilogue, Residual)

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """What is given with the weights: name -> shape, dtype and limits."""
        grouped, form = groups.shape(self), self.weight
        found = parameters.parameters_of(self.epilogue, grouped, self.bound)
        if self.input == "f32":
            limit = parameters.FLOAT_LIMIT
            found["input_scale"] = Parameter((1,), "float32", 1 / limit, limit)
        if not isinstance(self.zero_weight, int):
            found = {"zero_weight": Parameter(grouped, form.dtype, form.min, form.max)} | found
        return found | outliers.parameters_of(self)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those on padding included."""
        return math.prod(self.matrix)

    @property
    def ops(self) -> int:
        """Arithmetic operations: two for each multiply-accumulate."""
        return 2 * self.macs

    @property
    def weight_bits_total(self) -> int:
        """Bits of all weights when each is stored at exactly its bits."""
        return math.prod(self.w_shape) * self.weight.bits

    @property
    def bound(self) -> int:
        """The largest absolute value a sum could have, by shape, formats, zero points and the
        number of outliers."""
        act, _ = self.farthest
        return self.matrix.k * math.prod(self.farthest) + outliers.bound(self, act)

    @property
    def farthest(self) -> tuple[int, int]:
        """How far values of x and w may be from their zero points."""

        def distance(form: Format, zero: int | str) -> int:
            if isinstance(zero, str):
                return form.max - form.min
            return max(form.max - zero, zero - form.min)

        return distance(self.act, self.zero_act), distance(self.weight, self.zero_weight)

    def reference(
        self,
        x: np.ndarray,
        w: np.ndarray,
        residual: np.ndarray | None = None,
        **parameters: np.ndarray,
    ) -> np.ndarray:
        """The exact result, `y_dtype`[y_shape], computed by NumPy alone: the oracle of every test.

        x: integers[x_shape] in format `act`, packed, or float32 (`ops.inputs`); w:
        integers[w_shape] in format `weight`; residual (float32, or integers of its format) and
        parameters: as the epilogue asks.
        Padding adds nothing, also in formats that have no zero.
        Raises WorkloadError on another shape and on an argument that is missing or not asked for,
        and FormatError on a value outside its format.
        """
        given = self.legal_parameters(parameters)
        form = REAL if inputs.is_float(self) else self.act
        layout = inputs.layout_of(self)
        x = self._checked("x", x, self.x_shape, None if layout else form)
        w = self._checked("w", w, self.w_shape, self.weight)
        if (residual is None) != (self.residual is None):
            self._fail(f"residual is {'missing' if residual is None else 'not asked for'}")
        if residual is not None:
            form = REAL if self.residual.format == "f32" else self.residual.format
            residual = self._checked("residual", residual, self.y_extents, form)
        with np.errstate(all="ignore"):  # infinities and what is no number have results, too
            return self._result(x, w, residual, given)

    def _result(
        self,
        x: np.ndarray,
        w: np.ndarray,
        residual: np.ndarray | None,
        given: dict[str, np.ndarray],
    ) -> np.ndarray:
        """What `reference` gives for legal arguments."""
        layout, step = inputs.layout_of(self), None
        x = packed.unpack(x, self.act, layout, self.x_extents[-1]) if layout else x
        if inputs.is_float(self):
            x, step = inputs.quantized(self, x, given.pop("input_scale", None))
        zero = given.pop("zero_weight", self.zero_weight)
        if self.zero_act:
            x = x.astype(np.int16) - self.zero_act
        if np.any(zero):
            w = w.astype(np.int16) - groups.spread(self, zero)
        if self.outliers:
            w = w.astype(np.int16) + outliers.dense(self, *map(given.get, outliers.NAMES))
        if self.group:
            sums = groups.scaled(self, self._sums, x, w, given["scale"])
        else:
            sums = self._sums(x, w)
        return epilogue.apply(self.epilogue, sums, given, residual, step)

    def legal_parameters(self, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The parameters as arrays of their shapes and dtypes, in the order of `parameters`.

        Raises WorkloadError for one that is missing or not asked for, FormatError for one that has
        another shape or dtype, a value outside its limits, or outliers in another order.
        """
        for name in (*self.parameters, *given):
            if name not in given:
                self._fail(f"parameter {name} is missing")
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                self._fail(f"parameter {name} is not asked for; asked for: {known}")
        legal = {n: parameters.legal(n, given[n], p) for n, p in self.parameters.items()}
        if self.outliers:
            outliers.check_order(*map(legal.get, outliers.NAMES))
        return legal

    def _checked(
        self, what: str, value: Any, shape: tuple, form: Format | Real | None
    ) -> np.ndarray:
        """`value` as an array of this shape, with values of the format."""
        array = as_array(what, value)
        if array.shape != shape:
            self._fail(f"{what} has shape {array.shape}, expected {shape}")
        if form is not None:
            form.check(array, what)
        return array

    def _sums(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        """The sums of products, exact integers of any dtype, [y_shape]."""
        raise NotImplementedError

    @property
    def _exact_float(self) -> type:
        """The narrowest float in which every partial sum is an exact integer.

        That makes BLAS exact in whatever order it adds: bound <= 2^24 for float32, and the int32
        limit keeps it below 2^53 for float64.
        """
        return np.float32 if self.bound <= 2**24 else np.float64

    # The checks that all operators make when they are created.

    def _set(self, key: str, value: Any) -> None:
        object.__setattr__(self, key, value)

    def _fail(self, reason: str) -> NoReturn:
        raise WorkloadError(f"{self.kind}: {reason}")

    def _check_formats(self) -> None:
        for key in ("act", "weight"):
            try:
                self._set(key, Format.parse(getattr(self, key)))
            except FormatError as error:
                self._fail(f"{key}: {error}")
        self._set("epilogue", tuple(self.epilogue))
        if reason := checks.words(self):
            self._fail(reason)

    def _take_sizes(self, key: str, low: int, spread: Callable[[Any], tuple] | None = None) -> None:
        """Make field `key` an int, or the tuple that `spread` makes of it, of low..MAX_ELEMENTS."""
        value = getattr(self, key)
        try:
            sizes = spread(value) if spread else (value,)
            if any(isinstance(size, bool) for size in sizes):
                raise TypeError("True and False are no numbers here")
            sizes = tuple(int(operator.index(size)) for size in sizes)
        except (TypeError, ValueError) as error:
            self._fail(f"{key}={value!r} is not a size: {error}")
        self._set(key, sizes if spread else sizes[0])
        if not all(low <= size <= MAX_ELEMENTS for size in sizes):
            text = self.WORDS[key].write(getattr(self, key))
            self._fail(f"{key}={text} is outside {low}..{MAX_ELEMENTS}")

    def _check_sizes(self) -> None:
        if reason := checks.sizes(self):
            self._fail(reason)


def rows_per_block(row: int) -> int:
    """How many rows of `row` floats keep a block of an oracle's operands at 32 MiB or less."""
    return max(1, 2**22 // row)
