"""NumPy arrays and DLPack tensors on their way into a kernel and out of it."""

import math
import operator
import sys
from typing import Any

import numpy as np
import tvm_ffi

from lpgen.errors import LibraryError


def readable(what: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """`value` as a tensor of tvm-ffi; copied if it is not contiguous, or a read-only ndarray.

    Raises LibraryError, naming `what`, unless it has this shape and dtype and is on the CPU.
    """
    if isinstance(value, np.ndarray):
        _check(what, value, shape, dtype)
        if not (value.flags.c_contiguous and value.flags.writeable):
            value = value.copy(order="C")  # DLPack cannot export a read-only array
        return tvm_ffi.from_dlpack(value)
    tensor = _tensor(what, value)
    _check(what, tensor, shape, dtype)
    return tensor if tensor.is_contiguous() else _contiguous(tensor)


def writable(what: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """`value` as a tensor of tvm-ffi that shares its memory; LibraryError where it cannot be."""
    if isinstance(value, np.ndarray):
        _check(what, value, shape, dtype)
        if not value.flags.writeable:
            raise LibraryError(f"{what} is read-only")
        contiguous = value.flags.c_contiguous
        tensor = tvm_ffi.from_dlpack(value) if contiguous else None
    else:
        tensor = _tensor(what, value)
        _check(what, tensor, shape, dtype)
        contiguous = tensor.is_contiguous()
    if not contiguous:
        raise LibraryError(f"{what} is not contiguous")
    return tensor


def check_apart(out: Any, out_bytes: int, what: str, tensor: Any, nbytes: int) -> None:
    """Raise LibraryError if the memory of `out` is also that of the input `what`, even in part.

    Both are contiguous tensors of tvm-ffi of so many bytes.
    """
    start, first = out.data_ptr(), tensor.data_ptr()
    if first < start + out_bytes and start < first + nbytes:
        raise LibraryError(f"out overlaps {what}: what is still to be read would be written")


def to_numpy(what: str, value: Any) -> np.ndarray:
    """`value`, an ndarray or a DLPack tensor on the CPU, as an ndarray.

    Raises LibraryError, naming `what`, for anything else, and for a dtype that NumPy lacks.
    """
    if isinstance(value, np.ndarray):
        return np.asarray(value)  # of a subclass, such as a masked array, all elements count
    tensor = _tensor(what, value)
    try:
        return np.from_dlpack(tensor)
    except (BufferError, RuntimeError, TypeError, ValueError):
        raise LibraryError(f"{what}: NumPy has no {tensor.dtype}") from None


def like(x: Any, y: np.ndarray) -> Any:
    """`y` as an array of x's library, sharing its memory; `y` where that takes no DLPack tensor."""
    if isinstance(x, tvm_ffi.Tensor):
        library = tvm_ffi
    elif hasattr(x, "__array_namespace__"):
        library = x.__array_namespace__()
    else:
        library = sys.modules.get(type(x).__module__.partition(".")[0])
    convert = getattr(library, "from_dlpack", None)
    return y if convert is None else convert(y)


def count(what: str, value: Any, high: int, low: int = 1) -> int:
    """`value` as an int. Raises LibraryError, naming `what`, unless it is an integer of low..high.

    Integers are those of Python and NumPy, not True and False.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        raise LibraryError(f"{what}={_brief(value)} is not an integer within {low}..{high}")
    return number


def check_shape(what: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise LibraryError unless the shapes are the same."""
    if shape != expected:
        raise LibraryError(f"{what} has shape {list(shape)}, expected {list(expected)}")


def check_values(what: str, array: np.ndarray, form: dict[str, Any]) -> None:
    """Raise LibraryError, naming the first illegal value, unless all are values of the format.

    form: min, max, step, format and, of a code book, values of a tensor, as in the manifest.
    """
    if array.dtype.kind not in "iu":
        raise LibraryError(f"{what}: {array.dtype}, expected integers")
    low, high, step = form["min"], form["max"], form["step"]
    illegal = (array < low) | (array > high)
    if step > 1:
        illegal |= array % step != low % step
    elif "values" in form:
        illegal |= ~np.isin(array, form["values"])
    if illegal.any():
        first = np.unravel_index(int(np.argmax(illegal)), array.shape)
        where, odd = ", ".join(map(str, map(int, first))), "odd " if step == 2 else ""
        described = "" if "values" in form else f": {odd}integers {low}..{high}"
        raise LibraryError(
            f"{what}[{where}] = {array[first]} is not a value of {form['format']}{described}"
        )


def parameter(value: Any, entry: dict[str, Any]) -> np.ndarray:
    """`value` as the array that the manifest's `entry` asks for.

    Raises LibraryError, naming it, for another shape, for numbers of another kind, and for one
    outside of its limits: integers may have any dtype, floats are rounded after the check.
    """
    name, shape, dtype = entry["name"], tuple(entry["shape"]), np.dtype(entry["dtype"])
    array = np.asarray(value) if np.isscalar(value) else to_numpy(name, value)
    array = array.reshape(shape) if array.shape == () and shape == (1,) else array
    check_shape(name, array.shape, shape)
    python_ints = array.dtype == object and all(type(v) is int for v in array.flat)  # any size
    if array.dtype.kind not in ("iuf" if dtype.kind == "f" else "iu") and not python_ints:
        raise LibraryError(f"{name}: {array.dtype}, expected {dtype}")
    low, high = entry["min"], entry["max"]
    if array.dtype.kind != "f":
        low, high = math.ceil(low), math.floor(high)  # compared exactly
    elif array.dtype == np.float16:
        array = array.astype(np.float32)  # whose range holds the limits
    wrong = ~((array >= low) & (array <= high))  # also not a number
    _refuse(name, array, wrong, f"is outside of {entry['min']}..{entry['max']}")
    plain = np.require(array, dtype, ["C", "W"])
    if zeros := entry.get("zeros"):
        more = plain.view(np.uint32) & zeros != 0
        _refuse(name, array, more | (plain != array), "is no bfloat16")
    return plain


def _refuse(name: str, array: np.ndarray, wrong: np.ndarray, reason: str) -> None:
    """LibraryError with the first of the wrong elements, if there is one."""
    if wrong.any():
        first = np.unravel_index(int(np.argmax(wrong)), array.shape)
        raise LibraryError(f"{name}[{', '.join(map(str, first))}] = {array[first]} {reason}")


def _contiguous(tensor: Any) -> Any:
    return tvm_ffi.from_dlpack(np.from_dlpack(tensor).copy(order="C"))


def _tensor(what: str, value: Any) -> Any:
    try:
        tensor = value if isinstance(value, tvm_ffi.Tensor) else tvm_ffi.from_dlpack(value)
        _ = tensor.dtype  # fails for complex numbers
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        kind, dtype = type(value).__name__, getattr(value, "dtype", None)
        described = kind if dtype is None else f"{kind} of {_brief(dtype)}"
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise LibraryError(
            f"{what}: {described} is no dense array or DLPack tensor in the CPU's memory "
            f"({reason[:200]})"
        ) from None
    if tensor.device.type != "cpu":
        raise LibraryError(f"{what} is on {tensor.device}, not in the CPU's memory")
    if getattr(value, "is_neg", bool)():  # torch: the sign is no part of the memory
        raise LibraryError(f"{what} is a negated view; its resolve_neg() can be read")
    return tensor


def _brief(value: Any) -> str:
    """The value in one line of a readable length."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check(what: str, array: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    check_shape(what, tuple(array.shape), shape)
    if array.dtype != (dtype if isinstance(array, np.ndarray) else dtype.name):
        raise LibraryError(f"{what}: {array.dtype}, expected {dtype}")
