"""A model's file as a graph of known sizes: nodes in order, constants, types of inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lpgen.errors import OnnxError
from lpgen.onnx.checks import type_name
from lpgen.ops.tensor_type import TensorType

if TYPE_CHECKING:
    import onnx

MAX_NODES = 100_000
MAX_BYTES = 2**31 - 1
"""Of one tensor; also the limit of a file without external data."""


@dataclass(frozen=True)
class Model:
    """The main graph of a model.

    nodes: in an order in which they can run; constants: values by name; inputs: what a call gives,
    outputs: the names of what it gets; opsets: version by domain, "" being ONNX's own.
    """

    nodes: Sequence[onnx.NodeProto] = field(repr=False)
    constants: Mapping[str, np.ndarray] = field(repr=False)
    inputs: Mapping[str, TensorType]
    outputs: Sequence[str]
    opsets: Mapping[str, int]


def read_model(path: str | os.PathLike[str], shapes: Mapping[str, Sequence[int]] = {}) -> Model:
    """The model in a file of ONNX.

    shapes: the sizes of inputs that the file leaves open, or other ones, by name. Raises OnnxError
    for what is no file of ONNX or not a valid one, for an input whose sizes are not known, for a
    name in shapes that no input has, and for tensors of 2 GiB and more.
    """

    model = load(Path(path))
    _check_size(model, path)
    model = _inlined(model, path)
    _check_size(model, path)
    graph = model.graph
    constants = {t.name: _array(t) for t in graph.initializer}
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise OnnxError(f"{path}: constant {name} is sparse, lpgen has dense ones")
    given = [value for value in graph.input if value.name not in constants]
    if unknown := sorted(set(shapes) - {value.name for value in given}):
        names = ", ".join(value.name for value in given)
        raise OnnxError(f"{path} has no input {unknown[0]!r}; its inputs: {names}")
    return Model(
        list(graph.node),
        constants,
        {value.name: _input_type(value, shapes.get(value.name)) for value in given},
        [value.name for value in graph.output],
        {"" if s.domain == "ai.onnx" else s.domain: s.version for s in model.opset_import},
    )


def _check_size(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    if len(model.graph.node) > MAX_NODES:
        raise OnnxError(f"{path} has {len(model.graph.node)} nodes, the limit is {MAX_NODES}")


def _inlined(model: onnx.ModelProto, path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model without functions of its own: in place of each node what its function says."""
    from onnx import inliner

    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # what the inliner raises is not documented
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OnnxError(f"{path}: its functions cannot be read: {reason}") from None


def load(path: Path) -> onnx.ModelProto:
    """The checked model."""
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise OnnxError(f"{path} is {'no regular file' if path.exists() else 'not there'}")
    if path.stat().st_size > MAX_BYTES:
        raise OnnxError(f"{path} has {path.stat().st_size} bytes, the limit is {MAX_BYTES}")
    try:
        model = onnx.load(path)
        if not model.HasField("graph") or not model.graph.node:
            raise OnnxError(f"{path} holds no graph of ONNX")
        onnx.checker.check_model(model)
    except DecodeError:
        raise OnnxError(f"{path} is no file of ONNX, or a truncated one") from None
    except onnx.checker.ValidationError as error:
        raise OnnxError(f"{path}: {str(error).strip().splitlines()[0]}") from None
    except OSError as error:
        raise OnnxError(f"{path}: {error.strerror} ({error.filename or path})") from None
    return model


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OnnxError(f"constant {tensor.name}: {reason}") from None


def _input_type(value: onnx.ValueInfoProto, given: Sequence[int] | None) -> TensorType:
    """The type of an input; given: its sizes, where the caller says them."""
    from onnx import helper

    name, kind = value.name, value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise OnnxError(f"input {name} is a {str(kind).removesuffix('_type')}, lpgen has tensors")
    tensor = value.type.tensor_type
    dtype = type_name(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    stated = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim]
    if given is None:
        given = [size if isinstance(size, int) else 0 for size in stated]
    if tensor.HasField("shape") and len(given) != len(stated):
        raise OnnxError(f"input {name} has {len(stated)} axes, --shape gives {len(given)}")
    for axis, (size, asked) in enumerate(zip(stated, given, strict=False)):
        if isinstance(size, int) and size > 0 and size != asked:
            raise OnnxError(f"input {name} has size {size} in axis {axis}, --shape gives {asked}")
    if not all(size > 0 for size in given) or (not tensor.HasField("shape") and not given):
        shown = ", ".join(str(size or "?") for size in stated)
        example = "x".join(str(size if isinstance(size, int) else 1) for size in stated)
        raise OnnxError(f"input {name} has sizes [{shown}]: say --shape {name}={example}")
    if np.prod(given, dtype=np.float64) * 8 > MAX_BYTES:
        raise OnnxError(f"input {name} has sizes {list(given)}: more than 2 GiB")
    return TensorType(tuple(map(int, given)), dtype)
